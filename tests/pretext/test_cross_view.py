"""Contrast and prediction across views against their textbook forms: clip by clip, sums written out."""

from unittest import mock

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import assert_same_gradients, pretext_task, tiny_store
from torch import Tensor

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.errors import UserError
from ssl_skeleton.pretext.base import INPUT
from ssl_skeleton.pretext.cross_view import KEY
from ssl_skeleton.pretext.heads import mlp
from ssl_skeleton.pretext.queue import KeyQueue
from ssl_skeleton.recipe import StageConfig
from ssl_skeleton.training.batches import draw_views

BATCH = torch.tensor([1, 2, 3, 2])  # one clip stands twice in it, as it can where stores are balanced
CONTRAST = {"name": "contrastive_motion", "hidden": 6, "outputs": 4, "queue": 7, "temperature": 0.5}
PREDICT = {"name": "latent_reconstructor", "hidden": 6}
POOLINGS = ["mean", "max", "mean_max"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


def drawn(store, tree, batch=BATCH):
    """A pretext in float64 without dropout, whose twins have gone a way of their own, and its views."""
    with mock.patch.dict(tiny.PRETEXTS, {"this": tree}):
        task = pretext_task("this", store, frames=None)
    views = {name: clips.with_x(clips.x.double()) for name, clips in draw_views(task, batch, 0, 0).items()}
    pretext = task.pretext.double().eval()
    with torch.no_grad():
        for name, parameter in pretext.named_parameters():
            parameter.mul_(2.0 if name.startswith("key_") else 1.5)
    return pretext, views


def pooled(x_td: Tensor, pooling: str) -> Tensor:
    parts = {"mean": [x_td.mean(dim=0)], "max": [x_td.amax(dim=0)]}
    return torch.cat(parts["mean"] + parts["max"] if pooling == "mean_max" else parts[pooling])


def codes(encoder, clips: Clips, pooling: str) -> list[Tensor]:
    """Every clip encoded by itself, without padding."""
    each = zip(clips.x, clips.lengths, strict=True)
    return [pooled(encoder(x[None, :, :length], length[None])[0], pooling) for x, length in each]


def decoded(decoder, code: Tensor, frames: int, pooling: str) -> Tensor:
    """The decoder stepped by hand: the same code at every frame, its memory carried on."""
    states, memory = [], None
    for _ in range(frames):
        state, memory = decoder.gru(code[None], memory)
        states.append(state[0])
    return pooled(torch.stack(states), pooling)


def vectors(encoder, decoder, head, clips: Clips, pooling: str) -> list[Tensor]:
    found = codes(encoder, clips, pooling)
    if decoder is not None:
        frames = clips.lengths.tolist()
        found = [decoded(decoder, *given, pooling) for given in zip(found, frames, strict=True)]
    return [head(code) / head(code).norm() for code in found]


def contrast_by_clips(pretext, query: Clips, key: Clips, queue: KeyQueue) -> tuple[Tensor, float]:
    config = pretext.config
    learned = pretext.encoder, pretext.decoder, pretext.head
    queries = vectors(*learned, query, config.pooling)
    if config.momentum is None:
        keys = vectors(*learned, key, config.pooling)
    else:
        with torch.no_grad():
            keys = vectors(pretext.key_encoder, pretext.key_decoder, pretext.key_head, key, config.pooling)
    losses, nearest = [], []
    for clip, (vector, own) in enumerate(zip(queries, keys, strict=True)):
        others = [*queue.keys_kd]
        if config.in_batch:
            sides = [keys] if config.momentum is not None else [keys, queries]
            strange = [other for other in range(len(keys)) if key.index[other] != key.index[clip]]
            others += [side[other] for side in sides for other in strange]
        same = (vector @ own / config.temperature).exp()
        ordered = sorted([(vector @ other / config.temperature).exp() for other in others], reverse=True)
        positives = [same, *ordered[: config.positives]]
        each = [-(positive / (same + sum(ordered))).log() for positive in positives]
        losses.append(sum(each) / len(each))
        nearest.append(all(same > other for other in ordered))
    return torch.stack(losses).mean(), sum(nearest) / len(nearest)


def prediction_by_clips(pretext, query: Clips, key: Clips) -> Tensor:
    with torch.no_grad():
        targets = codes(pretext.key_encoder or pretext.encoder, key, pretext.pooling)
    guesses = [pretext.head(code) for code in codes(pretext.encoder, query, pretext.pooling)]
    pairs = zip(guesses, targets, strict=True)
    return torch.stack([2 - 2 * (one @ other) / (one.norm() * other.norm()) for one, other in pairs]).mean()


def assert_is(found: Tensor, expected: Tensor, pretext) -> None:
    """The same value, and the same gradient of all that is trained."""
    torch.testing.assert_close(found, expected)
    assert_same_gradients(found, expected, [p for p in pretext.parameters() if p.requires_grad])


@settings(max_examples=25, deadline=None)
@given(
    options=st.fixed_dictionaries(
        {
            "decoder": st.sampled_from([None, {"layers": 1, "hidden": 5}, {"layers": 2}]),
            "in_batch": st.booleans(),
            "symmetric": st.booleans(),
            "momentum": st.sampled_from([0.9, None]),
            "positives": st.sampled_from([0, 1, 3]),
            "pooling": st.sampled_from(POOLINGS),
        }
    )
)
def test_contrast(options, store):
    pretext, views = drawn(store, CONTRAST | options)
    parts = pretext(views)
    loss, accuracy = contrast_by_clips(pretext, views[INPUT], views[KEY], pretext.queue)
    if options["symmetric"]:
        back = contrast_by_clips(pretext, views[KEY], views[INPUT], pretext.input_queue)
        loss, accuracy = (loss + back[0]) / 2, (accuracy + back[1]) / 2
    assert_is(parts["loss"], loss, pretext)
    assert torch.equal(parts["contrast"], parts["loss"])
    assert parts["contrast_accuracy"].item() == pytest.approx(accuracy)


@pytest.mark.parametrize("momentum", [0.9, None])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_prediction(momentum, symmetric, pooling, store):
    options = {"symmetric": symmetric, "pooling": pooling, "momentum": momentum}
    pretext, views = drawn(store, PREDICT | options)
    loss = prediction_by_clips(pretext, views[INPUT], views[KEY])
    if symmetric:
        loss = (loss + prediction_by_clips(pretext, views[KEY], views[INPUT])) / 2
    parts = pretext(views)
    assert_is(parts["loss"], loss, pretext)
    assert torch.equal(parts["reconstruct_latent"], parts["loss"])
    assert 0 < parts["loss"] < 4


def test_without_a_queue_the_other_clips_alone_are_negatives(store):
    pretext, views = drawn(store, CONTRAST | {"queue": 0, "in_batch": True})
    loss, _ = contrast_by_clips(pretext, views[INPUT], views[KEY], pretext.queue)
    assert_is(pretext(views)["loss"], loss, pretext)
    pretext.train()(views)["loss"].backward()
    pretext.after_step()
    assert pretext.queue.keys_kd.shape == (0, 4)
    alone, views = drawn(store, CONTRAST | {"queue": 0, "in_batch": True}, BATCH[:1])
    assert alone(views)["loss"] == 0


@pytest.mark.parametrize("tree", [CONTRAST | {"decoder": {"layers": 1, "hidden": 5}}, PREDICT])
def test_the_twins_get_no_gradient_and_follow(tree, store):
    pretext, views = drawn(store, tree | {"symmetric": True, "momentum": 0.75})
    pretext(views)["loss"].backward()
    weights = dict(pretext.named_parameters())
    assert all((weight.grad is None) == name.startswith("key_") for name, weight in weights.items())
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    pretext.after_step()
    for name, slow in before.items():
        if name.startswith("key_"):
            expected = 0.75 * slow + 0.25 * before[name.removeprefix("key_")]
            torch.testing.assert_close(weights[name].detach(), expected)
        else:
            assert torch.equal(weights[name], slow)


def test_without_a_queue_or_a_twin_it_is_the_loss_of_simclr(store):
    """NT-Xent, Equation 1 of arXiv 2002.05709: the 2 N vectors of a batch against each other."""
    tree = CONTRAST | {"queue": 0, "in_batch": True, "symmetric": True, "momentum": None}
    pretext, views = drawn(store, tree, BATCH[:3])
    assert not [name for name, _ in pretext.named_parameters() if name.startswith("key_")]
    both = [vectors(pretext.encoder, None, pretext.head, views[name], "mean") for name in (INPUT, KEY)]
    vectors_nd = torch.stack(both[0] + both[1])
    likeness_nn = (vectors_nd @ vectors_nd.T / 0.5).exp()
    losses = [
        -(likeness_nn[one, (one + 3) % 6] / (likeness_nn[one].sum() - likeness_nn[one, one])).log()
        for one in range(6)
    ]
    assert_is(pretext(views)["loss"], torch.stack(losses).mean(), pretext)


def test_without_a_twin_keys_are_queued(store):
    pretext, views = drawn(store, CONTRAST | {"momentum": None}, BATCH[:3])
    expected = torch.stack(vectors(pretext.encoder, None, pretext.head, views[KEY], "mean"))
    pretext.training = True
    pretext(views)["loss"].backward()
    pretext.after_step()
    torch.testing.assert_close(pretext.queue.keys_kd[:3], expected.detach())
    assert not pretext.queue.keys_kd.requires_grad


def test_each_view_has_its_own_queue(store):
    pretext, views = drawn(store, CONTRAST | {"symmetric": True}, BATCH[:3])
    with torch.no_grad():
        expected = {
            name: torch.stack(vectors(pretext.key_encoder, None, pretext.key_head, views[name], "mean"))
            for name in (INPUT, KEY)
        }
        pretext.training = True  # but neither norms nor dropout
        pretext(views)
    pretext.after_step()
    torch.testing.assert_close(pretext.queue.keys_kd[:3], expected[KEY])
    torch.testing.assert_close(pretext.input_queue.keys_kd[:3], expected[INPUT])


@pytest.mark.parametrize("key_head", ["follow", "frozen"])
def test_by_default_the_state_and_its_start_are_those_of_the_published_form(key_head, store):
    """Names of weights, and the order of random numbers: checkpoints and seeds of before stay good."""
    tree = CONTRAST | {"key_head": key_head}
    with mock.patch.dict(tiny.PRETEXTS, {"this": tree}):
        pretext = pretext_task("this", store).pretext
    torch.manual_seed(0)
    layout = tiny.PackedClips(tiny.open_store(store), 1).layout
    tiny.ENCODER.build(layout, 3, 1)  # the teacher that is at hand
    encoder = tiny.ENCODER.build(layout, 3, 1)
    head = mlp(encoder.dim, 6, 4)
    key_head = head if key_head == "follow" else mlp(encoder.dim, 6, 4)
    parts = {"encoder": encoder, "head": head, "key_encoder": encoder, "key_head": key_head}
    parts["queue"] = KeyQueue(7, 4)
    expected = {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    found = pretext.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_mining_begins_after_so_many_steps(store):
    mined, views = drawn(store, CONTRAST | {"positives": 3})
    later, _ = drawn(store, CONTRAST | {"positives": 3, "positives_after": 2})
    never, _ = drawn(store, CONTRAST)
    found = []
    for _ in range(3):
        with torch.no_grad():
            found.append([float(pretext(views)["loss"]) for pretext in (mined, later, never)])
        for pretext in (mined, later, never):
            pretext.after_step()
    assert [later == never for _, later, never in found] == [True, True, False]
    assert [later == mined for mined, later, _ in found] == [False, False, True]
    assert later.state_dict()["steps"] == 3
    assert "steps" not in never.state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queue": 0}, "queue: 0 leaves no negatives; set in_batch to true"),
        ({"positives": 8}, "positives: 8, but the queue has 7 keys"),
        ({"momentum": None, "key_head": "frozen"}, "key_head: frozen, but with momentum: null"),
        ({"queue": -1, "in_batch": True}, r"pretext\.queue: "),
        ({"decoder": {"hidden": 0}}, r"pretext\.decoder\.hidden: "),
        ({"decoder": {"hiden": 5}}, "did you mean 'hidden'?"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        StageConfig.from_tree({"name": "main", "pretext": CONTRAST | change}, "recipe")


@pytest.mark.parametrize("tree", [CONTRAST, PREDICT])
def test_streams_must_fit_one_encoder(tree, store):
    with pytest.raises(UserError, match=f"{tree['name']}: key has 1 streams, input 2"):
        drawn(store, tree | {"input": {"streams": ["joint", "bone"]}})
