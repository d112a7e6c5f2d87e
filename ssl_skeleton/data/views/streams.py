"""Streams: the same clip as joint positions, as bones, or as motion."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ssl_skeleton.data.clips import Clips, clear_, frame_mask
from ssl_skeleton.data.views.axes import pick, stacked
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
    return clips.with_x(parts[0] if len(parts) == 1 else stacked(parts))


def _stream(clips: Clips, layout: Layout, name: Stream, space: int) -> Tensor:
    x_nctvm, seen, holed = clips.x[:, :space], clips.seen, clips.holed
    if name in ("bone", "bone_motion"):
        x_nctvm = x_nctvm - pick(x_nctvm, layout.parents)
        if seen.shape[3] > 1 and len(holed):
            seen = seen & pick(seen, layout.parents)
            x_nctvm = clear_(x_nctvm, seen, holed)
    if name in ("motion", "bone_motion"):
        x_nctvm = _step_to_next(x_nctvm)
        if len(holed):
            clear_(x_nctvm[:, :, :-1], _with_the_next(seen, clips.lengths), holed)
    others = clips.x[:, space:]
    return stacked([x_nctvm, others]) if others.shape[1] else x_nctvm


def _step_to_next(x_nctvm: Tensor) -> Tensor:
    """x[t + 1] - x[t], zero in the last frame."""
    step = torch.empty_like(x_nctvm)
    torch.sub(x_nctvm[:, :, 1:], x_nctvm[:, :, :-1], out=step[:, :, :-1])
    step[:, :, -1] = 0
    return step


def _with_the_next(seen: Tensor, lengths: Tensor) -> Tensor:
    """What is seen in a frame and in the next one, which must be valid; of all frames but the last."""
    both = seen[:, :, 1:] & seen[:, :, :-1]
    return both & frame_mask(lengths - 1, both.shape[2])[:, None, :, None, None]
