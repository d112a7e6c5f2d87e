from dataclasses import replace

import pytest
import torch
from tiny import pretext_task, sgd_step, tiny_store
from torch.nn import functional

from ssl_skeleton import ranks
from ssl_skeleton.encoders.pooling import represent
from ssl_skeleton.pretext.base import INPUT
from ssl_skeleton.pretext.contrastive_motion import KEY
from ssl_skeleton.pretext.losses import info_nce
from ssl_skeleton.training.batches import draw_views

BATCH = torch.tensor([1, 2, 3, 9])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


def copies(module) -> list[torch.Tensor]:
    return [tensor.detach().clone() for tensor in module.parameters()]


def equal(module, before) -> bool:
    return all(map(torch.equal, module.parameters(), before))


@torch.no_grad()
def test_the_loss_is_info_nce_of_query_key_and_queue(store):
    task = pretext_task("contrast", store)
    pretext, views = task.pretext.eval(), draw_views(task, BATCH, 0, 0)
    for parameter in pretext.key_head.parameters():
        parameter.mul_(1.1)  # so that it differs from the query's
    query = functional.normalize(pretext.head(represent(pretext.encoder, views[INPUT], "mean")), dim=1)
    key = functional.normalize(pretext.key_head(represent(pretext.key_encoder, views[KEY], "mean")), dim=1)
    loss, accuracy = info_nce(query, key, pretext.queue.keys_kd, 0.1)
    parts = pretext(views)
    torch.testing.assert_close(parts["loss"], loss)
    assert torch.equal(parts["contrast"], parts["loss"])
    assert torch.equal(parts["contrast_accuracy"], accuracy)


def test_the_keys_get_no_gradient(store):
    task = pretext_task("contrast", store)
    task.pretext(draw_views(task, BATCH, 0, 0))["loss"].backward()
    for twin in (task.pretext.key_encoder, task.pretext.key_head):
        assert all(parameter.grad is None for parameter in twin.parameters())
    for trained in (task.pretext.encoder, task.pretext.head):
        assert all(parameter.grad is not None for parameter in trained.parameters())


@pytest.mark.parametrize(("pretext", "follows"), [("contrast", True), ("contrast_frozen_head", False)])
def test_who_follows(pretext, follows, store):
    task = pretext_task(pretext, store)
    encoder, head = copies(task.pretext.key_encoder), copies(task.pretext.key_head)
    assert equal(task.pretext.encoder, encoder)
    for step in range(2):
        sgd_step(task.pretext, draw_views(task, BATCH, 0, step))
        task.pretext.after_step()
    assert not equal(task.pretext.key_encoder, encoder)
    assert equal(task.pretext.key_head, head) is not follows


def test_after_a_step_the_key_encoder_moves_by_the_formula(store):
    task = pretext_task("contrast", store)
    slow = copies(task.pretext.key_encoder)
    sgd_step(task.pretext, draw_views(task, BATCH, 0, 0), rate=1.0)
    task.pretext.after_step()
    for old, new, fast in zip(
        slow, task.pretext.key_encoder.parameters(), task.pretext.encoder.parameters(), strict=True
    ):
        torch.testing.assert_close(new, 0.9 * old + 0.1 * fast)


def test_the_keys_are_queued_in_the_order_of_the_batch(store, monkeypatch):
    """As they come from parts of it, of which each has every other clip."""
    task = pretext_task("contrast", store)
    views, keys = draw_views(task, BATCH, 0, 0), functional.normalize(torch.randn(4, 4), dim=1)
    assert keys.shape[1] == task.pretext.queue.keys_kd.shape[1]
    monkeypatch.setattr(task.pretext, "_keys", lambda _, views, key: keys[views[key].index])
    for places in (range(0, 4, 2), range(1, 4, 2)):
        part = {
            name: replace(clips, x=clips.x[places], lengths=clips.lengths[places], index=torch.tensor(places))
            for name, clips in views.items()
        }
        with ranks.holding(places):
            task.pretext(part)
    task.pretext.after_step()
    assert torch.equal(task.pretext.queue.keys_kd[:4], keys)
    assert task.pretext.queue.oldest == 4


def test_a_look_in_eval_mode_queues_nothing(store):
    task = pretext_task("contrast", store)
    queue, views = task.pretext.queue.keys_kd.clone(), draw_views(task, BATCH, 0, 0)
    task.pretext.eval()(views)
    task.pretext.after_step()
    assert torch.equal(task.pretext.queue.keys_kd, queue)


def test_a_look_at_the_loss_does_not_queue(store):
    task = pretext_task("contrast", store)
    queue = task.pretext.queue.keys_kd.clone()
    task.pretext(draw_views(task, BATCH, 0, 0))
    assert torch.equal(task.pretext.queue.keys_kd, queue)
    task.pretext.after_step()
    assert not torch.equal(task.pretext.queue.keys_kd, queue)
    after = task.pretext.queue.keys_kd.clone()
    task.pretext.after_step()  # nothing new was seen
    assert torch.equal(task.pretext.queue.keys_kd, after)


def test_the_key_draws_for_itself(store):
    task = pretext_task("contrast", store)
    assert task.pretext.views[INPUT].draw != task.pretext.views[KEY].draw
    views = draw_views(task, BATCH, 0, 0)
    assert not torch.equal(views[INPUT].x, views[KEY].x)  # of the same config, with another draw


@pytest.mark.parametrize(("pretext", "same_start"), [("contrast", True), ("contrast_frozen_head", False)])
def test_a_frozen_head_has_a_start_of_its_own(pretext, same_start, store):
    task = pretext_task(pretext, store).pretext
    assert equal(task.key_encoder, copies(task.encoder))
    for name, key in task.key_head.state_dict().items():
        assert torch.equal(key, task.head.state_dict()[name]) is same_start, name
        assert key.any()
    other = pretext_task(pretext, store, seed=1).pretext
    assert not equal(task.key_head, copies(other.key_head))
    assert not any(parameter.requires_grad for parameter in task.key_head.parameters())
