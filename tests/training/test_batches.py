from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CLIPS, PRETEXTS, pretext_task, tiny_store
from torch import Tensor

from ssl_skeleton import ranks
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.augment import AugmentConfig
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.data.views.view import SamplingConfig, make_view
from ssl_skeleton.training import batches as module
from ssl_skeleton.training.batches import Batch, batches, draw_views
from ssl_skeleton.training.seeds import generator
from ssl_skeleton.training.task import Task

SIZE = 4
STEPS = -(-CLIPS // SIZE)
STRONG = AugmentConfig(
    crop=0.4,
    rotate=(10, 30, 10),
    shear=0.2,
    scale=0.1,
    flip=0.5,
    reverse=0.5,
    noise=0.01,
    mask_joints=0.2,
    mask_frames=0.2,
)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store", bodies=2)


def task_of(store: Path, pretext: str, *, frames: int | None, bodies: int = 1) -> Task:
    """A task whose views are augmented in every way."""
    task = pretext_task(pretext, store, bodies=bodies, frames=frames)
    task.pretext.views = {
        name: replace(wanted, view=wanted.view.model_copy(update={"augment": STRONG}))
        for name, wanted in task.pretext.views.items()
    }
    return task


@contextmanager
def steps_ahead(steps: int, bodies: int = SIZE) -> Iterator[None]:
    """Let the views of so many steps, each of so many bodies in 6 frames, be made at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AHEAD", steps * (bodies * 6 * 20 * 3 + 1))
        yield


def same(one: Clips, other: Clips) -> bool:
    pairs = [
        (getattr(one, name), getattr(other, name)) for name in ("x", "lengths", "index", "label", "seen")
    ]
    return all(torch.equal(*pair) for pair in pairs)


def assert_same(found: Sequence[Batch], wanted: Sequence[Batch]) -> None:
    assert [batch.step for batch in found] == [batch.step for batch in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one.index, other.index)
        assert one.views.keys() == other.views.keys()
        assert all(same(view, other.views[name]) for name, view in one.views.items())


def plain_views(task: Task, index: Tensor, epoch: int, step: int) -> dict[str, Clips]:
    """Every view by itself, from a generator of its own."""
    found = {}
    for name, wanted in task.pretext.views.items():
        draws = Draws(generator(task.seed, task.name, epoch, step, wanted.draw), len(index))
        found[name] = make_view(task.packed, index, task.sampling, wanted.view, draws)
    return found


@pytest.mark.parametrize("pretext", PRETEXTS)
@pytest.mark.parametrize("shape", [(None, 1), (6, 1), (6, 2)], ids=str)
@pytest.mark.parametrize(("size", "steps"), [(4, 0), (4, 3), (4, 99), (13, 99)])  # the last has one clip
def test_steps_whose_views_are_made_at_once_see_what_they_would_see_alone(pretext, shape, size, steps, store):
    frames, bodies = shape
    task = task_of(store, pretext, frames=frames, bodies=bodies)
    with steps_ahead(steps, size * bodies):
        found = list(batches(task, size, 2))
    assert sorted(torch.cat([batch.index for batch in found]).tolist()) == list(range(CLIPS))
    assert {len(batch.index) for batch in found[:-1]} == {size}
    wanted = [
        Batch(step, batch.index, plain_views(task, batch.index, 2, step)) for step, batch in enumerate(found)
    ]
    assert_same(found, wanted)
    assert_same(found[:1], [Batch(0, found[0].index, draw_views(task, found[0].index, 2, 0))])


@given(st.integers(0, STEPS + 1), st.integers(0, 4))
@settings(max_examples=20, deadline=None)
def test_going_on_at_any_step_sees_the_same(store, first, ahead):
    task = task_of(store, "contrast", frames=6)
    with steps_ahead(ahead):
        whole = list(batches(task, SIZE, 1))
        assert_same(list(batches(task, SIZE, 1, first)), whole[first:])


def share(rank: int, world: int, count: int) -> slice:
    return slice(0, count) if count < world else slice(rank * count // world, (rank + 1) * count // world)


@pytest.mark.parametrize("frames", [None, 6])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_a_batch_out(frames, world, store, monkeypatch):
    """Their clips, rank by rank, are the batch; where it has fewer clips than ranks, all have all of it."""
    task, size = task_of(store, "fuse_joint", frames=frames, bodies=2), 12
    whole = list(batches(task, size, 0))
    each = []
    monkeypatch.setattr(ranks, "world_size", lambda: world)
    for rank in range(world):
        monkeypatch.setattr(ranks, "share", partial(share, rank, world))
        each.append(list(batches(task, size, 0)))
    for batch, *shares in zip(whole, *each, strict=True):
        assert all(torch.equal(share.index, batch.index) for share in shares)
        for name, view in batch.views.items():
            parts = [share.views[name] for share in shares]
            if len(batch.index) < world:
                assert all(same(part, view) for part in parts)
                continue
            for part in ("x", "lengths", "index", "seen"):
                assert torch.equal(torch.cat([getattr(one, part) for one in parts]), getattr(view, part))


def test_memory_is_bounded_however_many_steps_there_are(store, monkeypatch):
    made = []
    make_views = module.make_views

    def noted(packed, index, *rest):
        made.append(len(index))
        return make_views(packed, index, *rest)

    monkeypatch.setattr(module, "make_views", noted)
    task = pretext_task("reconstruct", store, frames=6)
    with steps_ahead(2):
        assert len(list(batches(task, SIZE, 0))) == STEPS
    assert made == [2 * SIZE] * 3 + [CLIPS - 6 * SIZE]
    made.clear()
    next(iter(batches(replace(task, sampling=SamplingConfig(frames=None)), SIZE, 0)))
    assert made == [SIZE]


def test_clips_without_names_go_by_their_numbers(store):
    assert pretext_task("reconstruct", store).names(torch.tensor([3, 0])) == ["3", "0"]
