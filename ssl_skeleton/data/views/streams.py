"""Streams: the same clip as joint positions, as bones, or as motion."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.skeleton.layout import Layout

Stream = Literal["joint", "bone", "motion", "bone_motion"]


def streams(clips: Clips, layout: Layout, names: Sequence[Stream], space: int = 3) -> Clips:
    """Clips (N, C, T, V, M) as the named streams, one after another along C.

    `joint` is the position, `bone` the vector from the parent joint (zero for the root), `motion` the step
    to the next frame (zero in the last), `bone_motion` that step of the bones. What needs a joint that is not
    seen is zero. Only the first `space` coordinates are positions: any others, such as a confidence, are in
    every stream as they are, since a difference of confidences says nothing about how sure the stream is.
    """
    parts = [_stream(clips, layout, name, space) for name in names]
    return clips.with_x(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))


def _stream(clips: Clips, layout: Layout, name: Stream, space: int) -> Tensor:
    x_nctvm, seen = clips.x[:, :space], clips.seen
    if name in ("bone", "bone_motion"):
        parents = list(layout.parents)
        x_nctvm = x_nctvm - x_nctvm[:, :, :, parents]
        if seen.shape[3] > 1:
            seen = seen & seen[:, :, :, parents]
            x_nctvm = torch.where(seen, x_nctvm, 0.0)
    if name in ("motion", "bone_motion"):
        x_nctvm = _step_to_next(x_nctvm, seen, clips.lengths)
    others = clips.x[:, space:]
    return torch.cat([x_nctvm, others], dim=1) if others.shape[1] else x_nctvm


def _step_to_next(x_nctvm: Tensor, seen: Tensor, lengths: Tensor) -> Tensor:
    """x[t + 1] - x[t] where it is seen in both frames and t + 1 is valid; else zero."""
    frames = x_nctvm.shape[2]
    step = torch.zeros_like(x_nctvm)
    both = seen[:, :, 1:] & seen[:, :, :-1]
    both &= frame_mask(lengths - 1, frames - 1)[:, None, :, None, None]
    step[:, :, :-1] = torch.where(both, x_nctvm[:, :, 1:] - x_nctvm[:, :, :-1], 0.0)
    return step
