"""The excitations of ACTION-Net (Wang et al., CVPR 2021, arXiv 2103.07372), on joints instead of pixels.

The paper applies all three to what comes into a block, and the sum of what they give takes its place. Here
each is an insert of its own: several with `place: parallel` see the same features, and what they give is
added to what the temporal part gives; at other places one follows the other. The release shifts channels
along time before all three: `temporal_shift` does that, with a fixed shift in place of a learned one. As
there, nothing has a bias. `reduction` is 16, as published.
"""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.temporal_convolution import TemporalConvolution
from ssl_skeleton.encoders.inserts.base import Insert, InsertConfig, SqueezingConfig
from ssl_skeleton.encoders.inserts.movement import Movement


class MotionExcitationConfig(SqueezingConfig):
    """Channels are excited that change from a frame to the next."""

    name: Literal["motion_excitation"] = "motion_excitation"

    def build(self, channels: int) -> "MotionExcitation":
        """A motion excitation of C = `channels`."""
        return MotionExcitation(channels, self.squeezed(channels))


class ChannelExcitationConfig(SqueezingConfig):
    """Channels are excited by what all of them hold, now and a frame ago and ahead."""

    name: Literal["channel_excitation"] = "channel_excitation"

    def build(self, channels: int) -> "ChannelExcitation":
        """A channel excitation of C = `channels`."""
        return ChannelExcitation(channels, self.squeezed(channels))


class SpatioTemporalExcitationConfig(InsertConfig):
    """Joints are excited, frame by frame."""

    name: Literal["spatio_temporal_excitation"] = "spatio_temporal_excitation"

    def build(self, channels: int) -> "SpatioTemporalExcitation":
        """A spatio-temporal excitation of any channels."""
        return SpatioTemporalExcitation()


class Excitation(Insert):
    """x + x * gate, with a gate between 0 and 1."""

    @abstractmethod
    def gate(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """The gate, as it is before the sigmoid, in a shape that (K, T, V, C) can be multiplied by."""

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """See Insert."""
        return x_ktvc * (1 + self.gate(x_ktvc, mask_kt).sigmoid())


class MotionExcitation(Excitation):
    """Squeezed channels, their movement, the mean over the joints, and back to all channels (Section 3.3)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, squeezed, bias=False)
        self.norm = FrameNorm(squeezed)
        self.movement = Movement(squeezed)
        self.expand = nn.Linear(squeezed, channels, bias=False)

    def gate(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """One for every frame and channel, (K, T, 1, C)."""
        squeezed_ktve = self.norm(self.squeeze(x_ktvc), mask_kt)
        # The movement is linear and the same for all joints, so that their mean may come first.
        gate_kt1c: Tensor = self.expand(self.movement(squeezed_ktve.mean(dim=2, keepdim=True), mask_kt))
        return gate_kt1c


class ChannelExcitation(Excitation):
    """The mean over the joints, squeezed, convolved over three frames, back to all channels (Section 3.2).

    All is linear but for the sigmoid, as in the paper's equations; the release has a ReLU before expanding.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, squeezed, bias=False)
        self.convolution = TemporalConvolution(squeezed, squeezed, 3)
        self.expand = nn.Linear(squeezed, channels, bias=False)

    def gate(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """One for every frame and channel, (K, T, 1, C)."""
        gate_kt1c: Tensor = self.expand(self.convolution(self.squeeze(x_ktvc.mean(dim=2, keepdim=True))))
        return gate_kt1c


class SpatioTemporalExcitation(Excitation):
    """The mean over the channels, convolved over its surroundings (Section 3.1).

    Those are 3 frames x 3 x 3 pixels in the paper. Joints do not lie on a grid: here they are three frames of
    the joint itself and of the mean of the body's joints.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convolution = TemporalConvolution(2, 1, 3)

    def gate(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """One for every frame and joint, (K, T, V, 1)."""
        joint_ktv = x_ktvc.mean(dim=3)
        body_ktv = joint_ktv.mean(dim=2, keepdim=True).expand_as(joint_ktv)
        gate_ktv1: Tensor = self.convolution(torch.stack([joint_ktv, body_ktv], dim=3))
        return gate_ktv1
