"""The multiple temporal aggregation of TEA (Li et al., CVPR 2020, arXiv 2004.01398, Section 3.2)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.temporal_convolution import DepthwiseConvolution
from ssl_skeleton.encoders.inserts.base import Insert, InsertConfig
from ssl_skeleton.errors import UserError


class MultipleTemporalAggregationConfig(InsertConfig):
    """`groups` of channels, four as published; fewer where the channels can only be parted into fewer."""

    name: Literal["multiple_temporal_aggregation"] = "multiple_temporal_aggregation"
    groups: int = Field(default=4, ge=2)

    def build(self, channels: int) -> "MultipleTemporalAggregation":
        """An aggregation of C = `channels`."""
        fitting = [groups for groups in range(2, min(self.groups, channels) + 1) if channels % groups == 0]
        if not fitting:
            raise UserError(
                f"encoder.inserts: {self.name} cannot part {channels} channels into {self.groups} groups or "
                "fewer; name the `blocks` that it goes into, or more `groups`"
            )
        return MultipleTemporalAggregation(channels, fitting[-1])


class MultipleTemporalAggregation(Insert):
    """Groups of channels, each hearing the one before it, so that the last sees the longest time.

    The first group stays as it is; the second is convolved; every other is convolved together with what came
    out of the one before.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.convolutions = nn.ModuleList(_SubConvolution(channels // groups) for _ in range(groups - 1))

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """See Insert."""
        first_ktvg, *others = x_ktvc.chunk(self.groups, dim=3)
        out = [first_ktvg]
        for number, (convolution, group_ktvg) in enumerate(zip(self.convolutions, others, strict=True)):
            out.append(convolution(group_ktvg + out[-1] if number else group_ktvg, mask_kt))
        return torch.cat(out, dim=3)


class _SubConvolution(nn.Module):
    """Convolutions over time and space, norm, ReLU; that over 3 x 3 pixels becomes a product of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temporal = DepthwiseConvolution(channels, 3)
        self.spatial = nn.Linear(channels, channels, bias=False)
        self.norm = FrameNorm(channels)

    def forward(self, x_ktvg: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T, V, G)."""
        return functional.relu(self.norm(self.spatial(self.temporal(x_ktvg)), mask_kt), inplace=True)
