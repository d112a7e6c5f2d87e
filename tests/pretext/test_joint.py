from unittest import mock

import pytest
import torch
from tiny import PRETEXTS, pretext_task, tiny_store

from ssl_skeleton.errors import UserError
from ssl_skeleton.recipe import StageConfig
from ssl_skeleton.training.batches import draw_views

BATCH = torch.tensor([1, 2, 3, 9])
PARTS = PRETEXTS["joint"]["parts"]


@pytest.fixture
def task(tmp_path):
    return pretext_task("joint", tiny_store(tmp_path / "store"))


@torch.no_grad()
def test_the_loss_is_the_weighted_sum(task):
    views = draw_views(task, BATCH, 0, 0)
    joint = task.pretext.eval()
    parts = joint(views)
    reconstruct, contrast = (part(views) for part in joint.parts)
    torch.testing.assert_close(parts["loss"], reconstruct["loss"] + 0.5 * contrast["loss"])
    names = {*reconstruct, *contrast}
    assert parts.keys() == names
    assert all(torch.equal(parts[name], {**reconstruct, **contrast}[name]) for name in names - {"loss"})


def test_the_encoder_runs_once(task):
    calls = []
    task.pretext.encoder.register_forward_hook(lambda *_: calls.append(1))
    task.pretext(draw_views(task, BATCH, 0, 0))
    assert len(calls) == 1


SEEN = {"streams": ["joint"], "augment": {"crop": 0.5}}
PREDICT = {"name": "latent_reconstructor", "hidden": 8}


def joint_of(store, *parts):
    tree = {"name": "joint", "parts": parts, "weights": [1.0, 0.5, 0.25][: len(parts)]}
    with mock.patch.dict(PRETEXTS, {"this": tree}):
        return pretext_task("this", store)


@torch.no_grad()
def test_it_takes_every_kind_of_part(tmp_path):
    """Those that look across views share the other view, and each has a momentum encoder of its own."""
    task = joint_of(
        tiny_store(tmp_path / "store"), PARTS[0], {**PARTS[1], "key": SEEN}, {**PREDICT, "key": SEEN}
    )
    views = draw_views(task, BATCH, 0, 0)
    assert views.keys() == {"input", "key"}
    joint = task.pretext.eval()
    parts = joint(views)
    each = [part(views)["loss"] for part in joint.parts]
    torch.testing.assert_close(parts["loss"], each[0] + 0.5 * each[1] + 0.25 * each[2])
    assert parts.keys() >= {"reconstruct", "contrast", "reconstruct_latent"}
    assert len({id(part.key_encoder) for part in joint.parts[1:]}) == 2


def test_two_keys_are_refused(tmp_path):
    """One of them would go unseen."""
    with pytest.raises(UserError, match="different views as `key`"):
        joint_of(tiny_store(tmp_path / "store"), PARTS[1], {**PREDICT, "key": SEEN})


def test_every_part_has_its_own_step(task):
    queue = task.pretext.parts[1].queue.keys_kd.clone()
    task.pretext(draw_views(task, BATCH, 0, 0))
    task.pretext.after_step()
    assert not torch.equal(queue, task.pretext.parts[1].queue.keys_kd)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0, 1.0, 1.0]}, "3 for 2 parts"),
        ({"weights": [1.0, -0.5]}, r"weights\.1: "),
        ({"parts": [PARTS[0], PARTS[0]]}, "a pretext stands twice"),
        ({"parts": [PARTS[0] | {"input": {"streams": ["bone"]}}, PARTS[1]]}, "give `input` there"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        StageConfig.from_tree({"name": "joint", "pretext": PRETEXTS["joint"] | change}, "recipe")
