"""A deformable convolution (Dai et al., ICCV 2017, arXiv 1703.06211), along time."""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.temporal_convolution import TemporalConvolution
from ssl_skeleton.encoders.inserts.base import Insert, InsertConfig, Place
from ssl_skeleton.errors import UserError


class DeformableConvolutionConfig(InsertConfig):
    """It is a temporal part of its own, and so stands beside the block's by default.

    kernel  how many frames it takes, an odd number; three as published
    groups  of channels that look at places of their own
    """

    name: Literal["deformable_convolution"] = "deformable_convolution"
    place: Place = "parallel"
    kernel: int = Field(default=3, ge=1)
    groups: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check_kernel(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel: should be an odd number, not {self.kernel}")
        return self

    def build(self, channels: int) -> "DeformableConvolution":
        """A deformable convolution of C = `channels`."""
        if channels % self.groups:
            raise UserError(
                f"encoder.inserts: {self.name} cannot part {channels} channels into {self.groups} groups; "
                "name the `blocks` that it goes into, or other `groups`"
            )
        return DeformableConvolution(channels, self.kernel, self.groups)


class DeformableConvolution(Insert):
    """norm(sum over taps r of W_r x(t + r + offset)), with offsets that the features themselves give (eq. 2).

    Every joint, frame and group of channels has an offset for each tap, a real number of frames. A temporal
    convolution of the same kernel gives them, and starts at zero (Section 2.1). Features between frames
    are interpolated linearly; beyond a clip's ends they are zero.
    """

    def __init__(self, channels: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.offset = TemporalConvolution(channels, groups * kernel, kernel)
        nn.init.zeros_(self.offset.convolution.weight)
        self.offset_bias_gr = nn.Parameter(torch.zeros(groups, kernel))
        self.product = nn.Linear(kernel * channels, channels, bias=False)
        self.norm = FrameNorm(channels)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """See Insert."""
        taken_ktvgre = interpolated(x_ktvc, self.frames(x_ktvc))
        out_ktvc: Tensor = self.norm(self.product(taken_ktvgre.flatten(3)), mask_kt)
        return out_ktvc

    def frames(self, x_ktvc: Tensor) -> Tensor:
        """Where each tap looks, in frames, (K, T, V, G, R)."""
        groups, taps = self.offset_bias_gr.shape
        offset_ktvgr = self.offset(x_ktvc).view(*x_ktvc.shape[:3], groups, taps)
        now_t = torch.arange(x_ktvc.shape[1], device=x_ktvc.device)
        tap_r = torch.arange(taps, device=x_ktvc.device) - taps // 2
        # Half precision would round the late frames of a clip to every second one.
        offset_ktvgr = offset_ktvgr.to(torch.promote_types(offset_ktvgr.dtype, torch.float32))
        frames_ktvgr: Tensor = (now_t[:, None] + tap_r)[:, None, None] + (offset_ktvgr + self.offset_bias_gr)
        return frames_ktvgr


def interpolated(x_ktvc: Tensor, frames_ktvgr: Tensor) -> Tensor:
    """Features (K, T, V, G, R, E) of G groups of E channels at R real numbers of frames each.

    The gradient of a place is the slope there; at a whole number, the slope ahead.
    """
    bodies, frames, joints, groups, _ = frames_ktvgr.shape
    body_k, joint_v, group_g = (torch.arange(size, device=x_ktvc.device) for size in (bodies, joints, groups))
    rows_ie = x_ktvc.reshape(bodies * frames * joints * groups, -1)
    frames_ktvgr = frames_ktvgr.clamp(-2, frames + 1)  # beyond which all is zero, and flat
    low_ktvgr = frames_ktvgr.detach().floor()
    above_ktvgr = frames_ktvgr - low_ktvgr
    sides: list[Tensor] = []
    for step, share_ktvgr in ((0, 1 - above_ktvgr), (1, above_ktvgr)):
        frame_ktvgr = low_ktvgr.long() + step
        inside_ktvgr = (frame_ktvgr >= 0) & (frame_ktvgr < frames)
        row_ktvgr = body_k[:, None, None, None, None] * frames + frame_ktvgr.clamp(0, frames - 1)
        row_ktvgr = (row_ktvgr * joints + joint_v[:, None, None]) * groups + group_g[:, None]
        # Rows are picked much faster than places along a dimension.
        taken_ktvgre = rows_ie.index_select(0, row_ktvgr.flatten()).view(*row_ktvgr.shape, -1)
        sides.append(taken_ktvgre * (share_ktvgr * inside_ktvgr).to(x_ktvc.dtype)[..., None])
    return sides[0] + sides[1]
