"""The spatio-temporal and motion encoding STM (Jiang et al., ICCV 2019, arXiv 1908.02486)."""

from typing import Literal

from torch import Tensor, nn

from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.temporal_convolution import DepthwiseConvolution
from ssl_skeleton.encoders.inserts.base import Insert, SqueezingConfig
from ssl_skeleton.encoders.inserts.movement import Movement


class SpatioTemporalMotionConfig(SqueezingConfig):
    """`reduction` is that of the motion module, 16 as published."""

    name: Literal["spatio_temporal_motion"] = "spatio_temporal_motion"

    def build(self, channels: int) -> "SpatioTemporalMotion":
        """An STM of C = `channels`."""
        return SpatioTemporalMotion(channels, self.squeezed(channels))


class SpatioTemporalMotion(Insert):
    """x + norm(CSTM(x) + CMM(x)): what there is and how it changes, side by side (Section 3.3).

    CSTM, the channel-wise spatio-temporal module (Section 3.1), convolves every channel over three frames and
    then over space; CMM, the channel-wise motion module (Section 3.2), squeezes the channels, takes their
    movement, and goes back to all channels. The convolutions over 3 x 3 pixels become products of a joint's
    channels. The paper's pointwise convolutions around both belong to the bottleneck of its ResNet; a graph
    block has pointwise products of its own.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.temporal = DepthwiseConvolution(channels, 3)
        self.spatial = nn.Linear(channels, channels, bias=False)
        self.squeeze = nn.Linear(channels, squeezed, bias=False)
        self.movement = Movement(squeezed)
        self.expand = nn.Linear(squeezed, channels, bias=False)
        self.norm = FrameNorm(channels)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """See Insert."""
        present_ktvc = self.spatial(self.temporal(x_ktvc))
        moving_ktvc = self.expand(self.movement(self.squeeze(x_ktvc), mask_kt))
        out_ktvc: Tensor = x_ktvc + self.norm(present_ktvc + moving_ktvc, mask_kt)
        return out_ktvc
