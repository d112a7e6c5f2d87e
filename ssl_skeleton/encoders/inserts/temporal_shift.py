"""The temporal shift module, TSM (Lin et al., ICCV 2019, arXiv 1811.08383)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ssl_skeleton.encoders.blocks.mask import cleared
from ssl_skeleton.encoders.inserts.base import Insert, InsertConfig
from ssl_skeleton.errors import UserError


class TemporalShiftConfig(InsertConfig):
    """`share` of the channels look a frame ahead and as many a frame back: an eighth each, as in the release.

    The residual shift of the paper (Section 3.3), which leaves the present features to the shortcut, is
    `place: series`; its in-place shift is `place: start`.
    """

    name: Literal["temporal_shift"] = "temporal_shift"
    share: float = Field(default=1 / 8, gt=0, le=1 / 2)

    def build(self, channels: int) -> "TemporalShift":
        """A shift of C = `channels`, of one channel each way at least."""
        if channels < 2:
            raise UserError(f"encoder.inserts: {self.name} wants 2 channels at least, there is {channels}")
        return TemporalShift(max(1, int(self.share * channels)))


class TemporalShift(Insert):
    """The first `moved` channels are those of the next frame, as many after them those of the last.

    A frame beyond a clip's ends is zero.
    """

    def __init__(self, moved: int) -> None:
        super().__init__()
        self.moved = moved

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """See Insert."""
        ahead_ktvc = functional.pad(x_ktvc[:, 1:, :, : self.moved], (0, 0, 0, 0, 0, 1))
        back_ktvc = functional.pad(x_ktvc[:, :-1, :, self.moved : 2 * self.moved], (0, 0, 0, 0, 1, 0))
        # The last valid frame would look on beyond its end.
        return torch.cat([ahead_ktvc, cleared(back_ktvc, mask_kt), x_ktvc[..., 2 * self.moved :]], dim=3)
