"""The excitations of ACTION-Net (Wang et al., CVPR 2021, arXiv 2103.07372), on joints instead of pixels."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.inserts.base import Insert, InsertConfig


class MotionExcitationConfig(InsertConfig):
    """`reduction` is by how much the channels are squeezed."""

    name: Literal["motion_excitation"] = "motion_excitation"
    reduction: int = Field(default=16, ge=1)

    def build(self, channels: int) -> "MotionExcitation":
        """A motion excitation of C = `channels`."""
        return MotionExcitation(channels, max(1, channels // self.reduction))


class MotionExcitation(Insert):
    """x + x * gate, the gate telling which channels change from a frame to the next (Section 3.3).

    Squeezed features of the next frame, mixed by a convolution, minus those of this one; the mean
    over the joints, through a second convolution and a sigmoid. The last valid frame moves nowhere.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, squeezed, bias=False)
        self.norm = FrameNorm(squeezed)
        self.next = nn.Linear(squeezed, squeezed, bias=False)
        self.expand = nn.Linear(squeezed, channels)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """See Insert."""
        squeezed_ktve = self.norm(self.squeeze(x_ktvc), mask_kt)
        moved_ktve = self.next(squeezed_ktve[:, 1:]) - squeezed_ktve[:, :-1]
        if mask_kt is not None:
            moved_ktve = torch.where(mask_kt[:, 1:, None, None], moved_ktve, 0)
        moved_kte = functional.pad(moved_ktve.mean(dim=2), (0, 0, 0, 1))
        gate_kt1c: Tensor = self.expand(moved_kte).sigmoid()[:, :, None]
        return x_ktvc + x_ktvc * gate_kt1c
