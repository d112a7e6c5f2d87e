from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import pretext_task, tiny_store

from ssl_skeleton.training.batches import Batch, batches
from ssl_skeleton.training.diagnosis import blame
from ssl_skeleton.training.task import Task


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture
def task(store) -> Task:
    return replace(pretext_task("contrast", store), names=lambda index: [f"clip{n}" for n in index.tolist()])


def a_batch(task: Task, size: int) -> Batch:
    return next(iter(batches(task, size, 0)))


def with_view(batch: Batch, name: str, place: int, value: float) -> Batch:
    """The batch with one coordinate of a clip in one view set."""
    x_nctvm = batch.views[name].x.clone()
    x_nctvm[place, 0, 0, 0, 0] = value
    return replace(batch, views=batch.views | {name: batch.views[name].with_x(x_nctvm)})


@pytest.mark.parametrize("view", ["input", "key"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_clips_whose_views_are_not_finite(task, view, value):
    batch = with_view(with_view(a_batch(task, 7), view, 2, value), "input", 5, value)
    bad = batch.index[[2, 5]].tolist()
    assert blame(task, batch) == f"the views are not finite of clip{bad[0]}, clip{bad[1]}"


def test_clips_whose_features_are_not_finite(task):
    batch = with_view(a_batch(task, 6), "input", 4, 1e6)

    def overflow(encoder, given, features_ntd):
        assert not encoder.training
        return features_ntd.masked_fill((given[0].flatten(1) > 1e5).any(dim=1)[:, None, None], torch.inf)

    task.pretext.encoder.register_forward_hook(overflow)
    assert blame(task, batch) == f"the features are not finite of clip{int(batch.index[4])}"
    assert task.pretext.training


def test_where_all_are_to_blame_or_none_the_first_are_named(task):
    batch = a_batch(task, 9)
    names = [f"clip{clip}" for clip in batch.index.tolist()]
    assert blame(task, batch) == f"the batch has {', '.join(names[:5])} and 4 more"
    with torch.no_grad():
        task.pretext.encoder.gru.weight_ih_l0.fill_(torch.nan)
    assert blame(task, batch) == f"the batch has {', '.join(names[:5])} and 4 more"
    assert blame(task, a_batch(task, 5)).endswith(names[4])
