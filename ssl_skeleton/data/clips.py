"""Clips: the batch that every view, encoder and pretext takes."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clips:
    """A batch of N clips. Absent bodies, and frames past a clip's length, are all zero.

    `x` float32 (N, C, T, V, M): C coordinates (metres, as recorded), T frames, V joints, M bodies.
    `lengths` int64 (N,): valid frames, 1 to T. `index` int64 (N,): the clip's place in its store.
    `label` int64 (N,): the class, -1 when unknown. `mask` is what `seen` gives, where that is known.
    """

    x: Tensor
    lengths: Tensor
    index: Tensor
    label: Tensor
    mask: Tensor | None = None

    @cached_property
    def seen(self) -> Tensor:
        """Which joints are seen, bool (N, 1, T, V, M), or (N, 1, T, 1, M) where bodies are seen as a whole.

        It is told once, from the recorded coordinates: what a view makes of them may be zero anywhere.
        """
        return body_mask(self.x) if self.mask is None else self.mask

    def __len__(self) -> int:
        return len(self.x)

    def with_x(self, x_nctvm: Tensor) -> "Clips":
        """The same clips with other coordinates of the same joints."""
        return replace(self, x=x_nctvm, mask=self.seen)


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """Which frames are valid, bool (N, T), for lengths (N,) and T = `frames`."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def body_mask(x_nctvm: Tensor) -> Tensor:
    """Which bodies are seen in which frames, bool (N, 1, T, 1, M): any coordinate is not zero."""
    return (x_nctvm != 0).any(dim=3, keepdim=True).any(dim=1, keepdim=True)
