"""Temporal layers of EfficientGCN (Song et al., TPAMI 2022, arXiv 2106.15125), most of them separable.

A convolution is separated into a depthwise one, along the time of each channel by itself, and pointwise ones,
which mix the channels of a frame.
"""

from typing import Literal

from torch import Tensor, nn

from ssl_skeleton.encoders.blocks.mask import strided
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.shortcut import Shortcut
from ssl_skeleton.encoders.blocks.temporal_convolution import DepthwiseConvolution, TemporalConvolution

TemporalKind = Literal["basic", "bottleneck", "depth_separable", "expanded", "sandglass"]
_RATIO = 2  # by which channels are reduced, or expanded, inside a layer; as released


class Step(nn.Module):
    """A convolution with its norm; where it is `active`, Swish (Ramachandran et al., arXiv 1710.05941)."""

    def __init__(self, convolution: nn.Module, outputs: int, stride: int = 1, *, active: bool = True) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = convolution
        self.norm = FrameNorm(outputs)
        self.activation = nn.SiLU() if active else nn.Identity()

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T', V, D), with the mask (K, T') of the output."""
        y_ktvd: Tensor = self.activation(self.norm(self.convolution(x_ktvc), mask_kt))
        return y_ktvd


class TemporalLayer(nn.Module):
    """Steps one after another, a shortcut around them all, and a Swish behind both where it is `active`."""

    def __init__(self, channels: int, stride: int, steps: list[Step], *, active: bool) -> None:
        super().__init__()
        self.stride = stride
        self.steps = nn.ModuleList(steps)
        self.strides = [step.stride for step in steps]
        self.shortcut = Shortcut(channels, channels, stride)
        self.activation = nn.SiLU() if active else nn.Identity()

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T', V, C) with the mask (K, T) of what comes in; T' = ceil(T / stride)."""
        y_ktvc = x_ktvc
        for step, stride in zip(self.steps, self.strides, strict=True):
            mask_kt = strided(mask_kt, stride)
            y_ktvc = step(y_ktvc, mask_kt)
        out_ktvc: Tensor = self.activation(y_ktvc + self.shortcut(x_ktvc, mask_kt))
        return out_ktvc


def temporal_layer(kind: TemporalKind, channels: int, kernel: int, stride: int = 1) -> TemporalLayer:
    """A temporal layer of C = `channels`, odd `kernel` and `stride`.

    basic            one full convolution
    bottleneck       a full one between pointwise ones, on half of the channels (ResNet, arXiv 1512.03385)
    depth_separable  a depthwise one, then a pointwise one (MobileNet, arXiv 1704.04861)
    expanded         a depthwise one between pointwise ones, on twice the channels (MobileNetV2, arXiv
                     1801.04381)
    sandglass        pointwise ones, to half of the channels and back, between depthwise ones (MobileNeXt,
                     arXiv 2007.02269)

    The separable ones end without an activation: what they add to the shortcut stays linear.
    """
    if kind == "basic":
        steps = [Step(_full(channels, kernel, stride), channels, stride, active=False)]
    elif kind == "bottleneck":
        inner = channels // _RATIO
        steps = [
            Step(_pointwise(channels, inner), inner),
            Step(_full(inner, kernel, stride), inner, stride),
            Step(_pointwise(inner, channels), channels, active=False),
        ]
    elif kind == "depth_separable":
        steps = _separable(channels, channels, kernel, stride)
    elif kind == "expanded":
        inner = channels * _RATIO
        steps = [Step(_pointwise(channels, inner), inner), *_separable(inner, channels, kernel, stride)]
    else:
        inner = channels // _RATIO
        steps = [
            Step(DepthwiseConvolution(channels, kernel), channels),
            Step(_pointwise(channels, inner), inner, active=False),
            Step(_pointwise(inner, channels), channels),
            Step(DepthwiseConvolution(channels, kernel, stride), channels, stride, active=False),
        ]
    return TemporalLayer(channels, stride, steps, active=kind in ("basic", "bottleneck"))


def _full(channels: int, kernel: int, stride: int) -> TemporalConvolution:
    return TemporalConvolution(channels, channels, kernel, stride)


def _pointwise(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def _separable(inputs: int, outputs: int, kernel: int, stride: int) -> list[Step]:
    return [
        Step(DepthwiseConvolution(inputs, kernel, stride), inputs, stride),
        Step(_pointwise(inputs, outputs), outputs, active=False),
    ]
