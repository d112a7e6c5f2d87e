"""From features over time to one vector a clip: the pooling that all encoders share."""

from typing import Literal

import torch
from torch import Tensor

from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.encoders.base import Encoder

Pooling = Literal["mean", "max", "mean_max"]


def valid_steps(lengths: Tensor, frames: int, steps: int) -> Tensor:
    """How many of T' = `steps` feature steps are valid, (N,), for `lengths` of T = `frames` frames."""
    return (lengths * steps + frames - 1) // frames


def pool(features_ntd: Tensor, steps: Tensor, pooling: Pooling) -> Tensor:
    """One vector a clip from features (N, T', D) with `steps` (N,) valid steps.

    `mean` is the temporal average pooling (TAP) of CRRL, (N, D); `max` takes the largest, (N, D);
    `mean_max` both, one after the other, (N, 2 D).
    """
    valid_nt1 = frame_mask(steps, features_ntd.shape[1])[:, :, None]
    parts = []
    if pooling in ("mean", "mean_max"):
        parts.append((features_ntd * valid_nt1).sum(dim=1) / steps[:, None])
    if pooling in ("max", "mean_max"):
        parts.append(torch.where(valid_nt1, features_ntd, -torch.inf).amax(dim=1))
    return torch.cat(parts, dim=1)


def pooled_dim(dim: int, pooling: Pooling) -> int:
    """The size of a pooled feature of D = `dim`."""
    return 2 * dim if pooling == "mean_max" else dim


def represent(encoder: Encoder, clips: Clips, pooling: Pooling) -> Tensor:
    """Encode and pool clips: (N, D), or (N, 2 D) for `mean_max`."""
    return pool_features(encoder(clips.x, clips.lengths), clips, pooling)


def pool_features(features_ntd: Tensor, clips: Clips, pooling: Pooling) -> Tensor:
    """Pool the features (N, T', D) that an encoder gave for `clips`."""
    steps = valid_steps(clips.lengths, clips.x.shape[2], features_ntd.shape[1])
    return pool(features_ntd, steps, pooling)
