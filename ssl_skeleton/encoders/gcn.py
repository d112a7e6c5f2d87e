"""What all graph encoders share: which bodies and frames they see, and how bodies become a clip."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.base import Encoder, EncoderConfig
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.skeleton.layout import Layout


class Stage(NamedTuple):
    """Blocks of one size, as published; the first of them has the stride."""

    channels: int
    blocks: int
    stride: int


class BlockSize(NamedTuple):
    """Channels in, channels out, and the stride in time."""

    inputs: int
    outputs: int
    stride: int


class GraphConfig(EncoderConfig, ABC):
    """Base of the graph encoders' configs.

    width          multiplies all channels, rounded to a multiple of 4
    depth          multiplies the blocks of every stage, one at least
    dropout        of every block, in training
    absent_bodies  `skip` leaves the bodies that a clip does not have out of everything; `count` takes them
                   for bodies at rest at the origin, as published code does
    """

    width: float = Field(default=1, gt=0, le=16)
    depth: float = Field(default=1, gt=0, le=16)
    dropout: float = Field(default=0, ge=0, lt=1)
    absent_bodies: Literal["skip", "count"] = "skip"

    def channels(self, published: int) -> int:
        """The channels, at this width, of a layer that has `published`."""
        return max(4, 4 * round(self.width * published / 4))

    def block_sizes(self, inputs: int, stages: Sequence[Stage]) -> Iterator[BlockSize]:
        """The blocks, at this width and depth, behind an input of C = `inputs`."""
        for stage in stages:
            outputs = self.channels(stage.channels)
            for block in range(max(1, round(self.depth * stage.blocks))):
                yield BlockSize(inputs, outputs, stage.stride if block == 0 else 1)
                inputs = outputs


class GraphBlock(nn.Module, ABC):
    """A block of a graph encoder. `stride` is by how much it shortens time, `outputs` its channels D."""

    def __init__(self, outputs: int, stride: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.stride = stride

    @abstractmethod
    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T', V, D), T' = ceil(T / stride), of K bodies' features (K, T, V, C).

        `mask_kt` (K, T) tells the valid frames, None that all are. What comes in is zero in other frames, and
        so is what goes out, where `strided(mask_kt, stride)` is valid. A joint may be mixed with any other of
        its body and frame, and a frame with others along time; bodies meet only in norms.
        """


def strided(mask_kt: Tensor | None, stride: int) -> Tensor | None:
    """Which steps are valid, (K, T'), after a stride; a step is valid when its first frame is."""
    return None if mask_kt is None else mask_kt[:, ::stride]


class GraphEncoder(Encoder):
    """Blocks on the bodies of a clip, then the mean over their joints, and over the clip's bodies.

    The coordinates go through a BatchNorm of V * C channels first (ST-GCN, arXiv 1801.07455, Section 4). A
    step of the last block stands for as many frames as the strides make, and is repeated for each of them:
    T' = T. Else a clip in a longer batch would seem to have more valid steps than the clip alone.
    """

    def __init__(
        self, config: GraphConfig, layout: Layout, channels: int, blocks: Sequence[GraphBlock]
    ) -> None:
        super().__init__()
        self.dim = blocks[-1].outputs
        self.skip_absent = config.absent_bodies == "skip"
        self.strides = [block.stride for block in blocks]
        self.input_norm = FrameNorm(len(layout.joints) * channels)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x_nctvm: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, D); zero past a clip's length, but for the rest of its last step."""
        frames = x_nctvm.shape[2]
        mask_nt = None if bool((lengths == frames).all()) else frame_mask(lengths, frames)
        if mask_nt is not None:
            x_nctvm = torch.where(mask_nt[:, None, :, None, None], x_nctvm, 0)
        present_nm = self._present(x_nctvm)
        x_ktvc = x_nctvm.permute(0, 4, 2, 3, 1)[present_nm]
        mask_kt = None if mask_nt is None else mask_nt[:, None].expand(*present_nm.shape, -1)[present_nm]
        # A frame's coordinates are the channels of one joint here.
        x_ktvc = self.input_norm(x_ktvc.flatten(2)[:, :, None], mask_kt).view(x_ktvc.shape)
        for block, stride in zip(self.blocks, self.strides, strict=True):
            x_ktvc, mask_kt = block(x_ktvc, mask_kt), strided(mask_kt, stride)
        features_nsd = _mean_over_bodies(x_ktvc.mean(dim=2), present_nm)
        return features_nsd.repeat_interleave(math.prod(self.strides), dim=1)[:, :frames]

    def _present(self, x_nctvm: Tensor) -> Tensor:
        """Which bodies are taken, bool (N, M): those seen anywhere in the clip, or else the first."""
        if not self.skip_absent:
            return x_nctvm.new_ones(len(x_nctvm), x_nctvm.shape[4], dtype=torch.bool)
        present_nm = (x_nctvm != 0).any(dim=3).any(dim=2).any(dim=1)
        present_nm[:, 0] |= ~present_nm.any(dim=1)
        return present_nm


def _mean_over_bodies(features_ktd: Tensor, present_nm: Tensor) -> Tensor:
    """The mean (N, T, D) over the bodies of every clip; their features are in the order of `present_nm`."""
    features_nmtd = features_ktd.new_zeros(*present_nm.shape, *features_ktd.shape[1:])
    features_nmtd[present_nm] = features_ktd
    return features_nmtd.sum(dim=1) / present_nm.sum(dim=1)[:, None, None]
