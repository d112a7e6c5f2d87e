"""A graph encoder at two frame rates, as SlowFast for videos (Feichtenhofer et al., ICCV 2019).

arXiv 1812.03982.
"""

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.base import Encoder, EncoderConfig
from ssl_skeleton.encoders.blocks.dropout import dropout_of
from ssl_skeleton.encoders.blocks.mask import strided
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.temporal_convolution import TemporalConvolution
from ssl_skeleton.encoders.gcn import GraphEncoder, repeated
from ssl_skeleton.encoders.graph_encoders import AnyGraphEncoder
from ssl_skeleton.encoders.tracing import padded
from ssl_skeleton.skeleton.layout import Layout


class TwoRateConfig(EncoderConfig):
    """A slow path, which is `encoder` on every few frames, and a light fast path, the same encoder on all.

    ratio    the slow path sees the first of every `ratio` frames; the paper's alpha, 8 there for videos of 30
             frames a second
    share    of the slow path's width is the fast path's; the paper's beta, 1/8 there
    lateral  how many frames a lateral connection takes, an odd number; 5 as published
    """

    name: Literal["two_rate"] = "two_rate"
    encoder: AnyGraphEncoder
    ratio: int = Field(default=4, ge=2, le=64)
    share: float = Field(default=0.25, gt=0, le=1)
    lateral: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _check_lateral(self) -> Self:
        if self.lateral % 2 == 0:
            raise ValueError(f"lateral: should be an odd number, not {self.lateral}")
        return self

    def build(self, layout: Layout, channels: int, bodies: int) -> "TwoRate":
        """Both paths, which see every body by itself."""
        light = self.encoder.model_copy(update={"width": self.share * self.encoder.width})
        slow, fast = (config.build(layout, channels, bodies) for config in (self.encoder, light))
        return TwoRate(self, slow, fast)


class TwoRate(Encoder):
    """Features of both paths one behind the other, slow ones first: D = D_slow + D_fast, T' = T.

    A lateral connection adds the fast path's features to the slow path's behind the stem and behind every
    stage but the last (Section 3.4). Stages end where the next block strides.
    """

    def __init__(self, config: TwoRateConfig, slow: GraphEncoder, fast: GraphEncoder) -> None:
        super().__init__()
        self.ratio = config.ratio
        self.slow, self.fast = slow, fast
        self.dim = slow.dim + fast.dim
        self.laterals = nn.ModuleDict()  # by the number of the block that they stand before
        for number, (to, of) in enumerate(zip(slow.sizes, fast.sizes, strict=True)):
            ends = to.stride > 1 if number else slow.stem is not None  # a stage, or the stem
            if ends:
                self.laterals[str(number)] = Lateral(of.inputs, to.inputs, config.lateral, self.ratio)

    def forward(self, x_nctvm: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, D); zero past a clip's length, but for the rest of its last step."""
        frames = x_nctvm.shape[2]
        x_nctvm = padded(x_nctvm, self.ratio * math.prod(self.slow.strides))
        few_nctvm, few = x_nctvm[:, :, :: self.ratio], (lengths + self.ratio - 1) // self.ratio
        fast_ktvc, fast_kt, taken_nm = self.fast.enter(x_nctvm, lengths)
        slow_ktvc, slow_kt, _ = self.slow.enter(few_nctvm, few, taken_nm)
        blocks = zip(self.slow.blocks, self.fast.blocks, self.slow.strides, strict=True)
        with dropout_of(taken_nm):
            for number, (slow, fast, stride) in enumerate(blocks):
                if str(number) in self.laterals:
                    slow_ktvc = slow_ktvc + self.laterals[str(number)](fast_ktvc, slow_kt)
                slow_ktvc, slow_kt = slow(slow_ktvc, slow_kt), strided(slow_kt, stride)
                fast_ktvc, fast_kt = fast(fast_ktvc, fast_kt), strided(fast_kt, stride)
        slow_nsd = self.slow.leave(slow_ktvc, taken_nm, few_nctvm.shape[2])
        slow_ntd = repeated(slow_nsd, self.ratio, frames)
        return torch.cat([slow_ntd, self.fast.leave(fast_ktvc, taken_nm, frames)], dim=2)

    def layers(self) -> list[list[nn.Parameter]]:
        """Those of both paths, side by side; a lateral connection belongs to the layer that it feeds."""
        layers = [slow + fast for slow, fast in zip(self.slow.layers(), self.fast.layers(), strict=True)]
        before = len(layers) - len(self.slow.blocks)
        for number, lateral in self.laterals.items():
            layers[before + int(number)] += lateral.parameters()
        return layers


class Lateral(nn.Module):
    """From the fast path to the slow one: a convolution along time with a stride; norm, ReLU.

    The T-conv of Section 3.4, to the slow path's channels, so that it can be added there.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, ratio: int) -> None:
        super().__init__()
        self.convolution = TemporalConvolution(inputs, outputs, kernel, ratio)
        self.norm = FrameNorm(outputs)

    def forward(self, fast_ktvc: Tensor, slow_kt: Tensor | None) -> Tensor:
        """Features (K, S, V, D) with the slow path's mask (K, S) of fast ones (K, T, V, C)."""
        return functional.relu(self.norm(self.convolution(fast_ktvc), slow_kt), inplace=True)
