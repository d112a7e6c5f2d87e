"""Clips: the batch that every view, encoder and pretext takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clips:
    """A batch of N clips. Absent bodies, and frames past a clip's length, are all zero.

    `x` float32 (N, C, T, V, M): C coordinates (metres, as recorded), T frames, V joints, M bodies; however it
    lies in memory.
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

    @cached_property
    def holed(self) -> Tensor:
        """The clips, int64 (H,), in which anything is unseen: a joint, a body, or a frame past the length."""
        return (~self.seen).flatten(1).any(dim=1).nonzero()[:, 0]

    @property
    def full(self) -> bool:
        """Whether all of every clip is seen, so that nothing has to stay zero."""
        return len(self.holed) == 0

    def clear_(self, x_nctvm: Tensor) -> Tensor:
        """Other coordinates of the same joints, set to zero in place where nothing is seen."""
        return clear_(x_nctvm, self.seen, self.holed)

    def __len__(self) -> int:
        return len(self.x)

    def split(self, sizes: Sequence[int]) -> list["Clips"]:
        """Clips of so many clips each, one after another."""
        ends = [0, *accumulate(sizes)]
        return [self.rows(slice(*ends_of_part)) for ends_of_part in pairwise(ends)]

    def rows(self, rows: slice) -> "Clips":
        """Those of the clips."""
        return Clips(self.x[rows], self.lengths[rows], self.index[rows], self.label[rows], self.seen[rows])

    def with_x(self, x_nctvm: Tensor) -> "Clips":
        """The same clips with other coordinates of the same joints."""
        clips = replace(self, x=x_nctvm, mask=self.seen)
        if "holed" in vars(self):
            vars(clips)["holed"] = self.holed  # the same, and already found
        return clips


def clear_(x: Tensor, seen: Tensor, holed: Tensor) -> Tensor:
    """Set `x` (N, ...) to zero in place where `seen` is false, which it is in the clips `holed` alone."""
    if 2 * len(holed) > len(x):
        x *= seen
    elif len(holed):
        x[holed] *= seen[holed]
    return x


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """Which frames are valid, bool (N, T), for lengths (N,) and T = `frames`."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def body_mask(x_nctvm: Tensor) -> Tensor:
    """Which bodies are seen in which frames, bool (N, 1, T, 1, M): any coordinate is not zero."""
    return (x_nctvm != 0).any(dim=3, keepdim=True).any(dim=1, keepdim=True)
