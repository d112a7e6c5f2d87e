"""From features over time to one vector a clip: the pooling that all encoders share."""

from typing import Literal

import torch
from torch import Tensor

from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.encoders.base import Encoder

Pooling = Literal["mean", "max", "last", "mean_max", "mean_last", "max_last", "mean_max_last"]


def valid_steps(lengths: Tensor, frames: int, steps: int) -> Tensor:
    """How many of T' = `steps` feature steps are valid, (N,), for `lengths` of T = `frames` frames."""
    return (lengths * steps + frames - 1) // frames


def pool(features_ntd: Tensor, steps: Tensor, pooling: Pooling) -> Tensor:
    """One vector a clip from features (N, T', D) with `steps` (N,) valid steps.

    `mean` is the temporal average pooling (TAP) of CRRL, `max` takes the largest, `last` the last valid step;
    each (N, D). `mean_max` and the like are one after another, (N, 2 D) or (N, 3 D).
    """
    valid_nt1 = frame_mask(steps, features_ntd.shape[1])[:, :, None]
    parts = []
    for name in pooling.split("_"):
        if name == "mean":
            parts.append((features_ntd * valid_nt1).sum(dim=1) / steps[:, None])
        elif name == "max":
            parts.append(torch.where(valid_nt1, features_ntd, -torch.inf).amax(dim=1))
        else:
            parts.append(features_ntd[torch.arange(len(steps), device=steps.device), steps - 1])
    return torch.cat(parts, dim=1)


def pooled_dim(dim: int, pooling: Pooling) -> int:
    """The size of a pooled feature of D = `dim`."""
    return dim * len(pooling.split("_"))


def represent(encoder: Encoder, clips: Clips, pooling: Pooling) -> Tensor:
    """Encode and pool clips: (N, D), or as many times D as `pooling` has parts."""
    return pool_features(encoder(clips.x, clips.lengths), clips, pooling)


def pool_features(features_ntd: Tensor, clips: Clips, pooling: Pooling) -> Tensor:
    """Pool the features (N, T', D) that an encoder gave for `clips`."""
    steps = valid_steps(clips.lengths, clips.x.shape[2], features_ntd.shape[1])
    return pool(features_ntd, steps, pooling)
