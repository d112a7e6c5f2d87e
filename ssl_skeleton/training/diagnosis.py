"""Which clips may be to blame for a step that is not finite."""

import torch
from torch import Tensor

from ssl_skeleton import ranks
from ssl_skeleton.pretext.base import INPUT, Pretext
from ssl_skeleton.training.batches import Batch
from ssl_skeleton.training.task import Task

_NAMED = 5  # clips


def blame(task: Task, batch: Batch) -> str:
    """Name the clips of a batch whose views, or else features, are not finite; or else the first of all.

    All ranks call it at once.
    """
    for what, bad_n in (("views", _bad_views(batch)), ("features", _bad_features(task.pretext, batch))):
        whole_n = bad_n if len(batch.index) < ranks.world_size() else ranks.gather_rows(bad_n.byte()).bool()
        if whole_n.any() and not whole_n.all():
            return f"the {what} are not finite of {_names(task, batch.index[whole_n.cpu()])}"
    return f"the batch has {_names(task, batch.index)}"


def _bad_views(batch: Batch) -> Tensor:
    """Which of this rank's clips have a view that is not finite, bool (N,)."""
    return torch.stack([_bad_rows(clips.x) for clips in batch.views.values()]).any(dim=0)


@torch.no_grad()
def _bad_features(pretext: Pretext, batch: Batch) -> Tensor:
    """Which of this rank's clips have features in the kept encoder that are not finite, bool (N,)."""
    clips = batch.views[INPUT]
    pretext.eval()  # in which clips do not depend on each other, and no statistics move
    features_ntd: Tensor = pretext.encoder(clips.x, clips.lengths)
    pretext.train()
    return _bad_rows(features_ntd)


def _bad_rows(x: Tensor) -> Tensor:
    return ~x.flatten(1).isfinite().all(dim=1)


def _names(task: Task, index: Tensor) -> str:
    names, more = task.names(index[:_NAMED]), len(index) - _NAMED
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
