"""EfficientGCN, a graph network of early fused branches, scaled as a whole (Song et al., TPAMI 2022).

arXiv 2106.15125. Its input branches are derived inside, so it is given joint positions, not streams of them.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.branches import Branch, BranchInputs
from ssl_skeleton.encoders.blocks.dropout import Dropout
from ssl_skeleton.encoders.blocks.graph_convolution import GraphConvolution
from ssl_skeleton.encoders.blocks.joint_attention import JointAttention
from ssl_skeleton.encoders.blocks.mask import strided
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.separable import TemporalKind, TemporalLayer, temporal_layer
from ssl_skeleton.encoders.blocks.shortcut import Shortcut
from ssl_skeleton.encoders.gcn import BlockSize, GraphBlock, GraphConfig, GraphEncoder
from ssl_skeleton.skeleton.graph import Normalisation, normalised, partitions
from ssl_skeleton.skeleton.layout import Layout

_STEM = 64  # channels, at any scale
_WINDOW = 5  # frames that a temporal layer sees
_WIDER, _DEEPER = 1.2, 1.35  # a scale than the one before it


class _Block(NamedTuple):
    """A block of B0, as published; `layers` is the published depth, which may round to none."""

    channels: int
    stride: int
    layers: float


_BRANCH = (_Block(48, 1, 0.5), _Block(24, 1, 0.5))
_MAIN = (_Block(64, 2, 1), _Block(128, 2, 1))


class EfficientGCNConfig(GraphConfig):
    """B0 to B4 as published and released, with the release's rounding.

    scale          0 to 4: blocks have 1.2^scale the channels, to multiples of 16, and 1.35^scale the temporal
                   layers; `width` and `depth` come on top, and `depth` multiplies these layers, not blocks
    branches       what is derived from the coordinates, each with a branch of its own
    temporal       the kind of the temporal layers; the published models have `sandglass`
    reach          a joint hears those up to so many bones away, each distance with weights of its own
    normalisation  of the graph of each distance by itself, as in the paper's equations
    dropout        of what each block gives; published models have theirs before the classifier
    inserts        are for the blocks of the main stream, 0 and 1, not for those of the branches
    input_norm     the branches have norms of their own, behind what they derive

    Published for B0, B2 and B4, with NTU 60's classifier, are 0.29, 0.51 and 1.10 million parameters. These
    have just as many when the release's biases before norms are added, and the edges' importance is not
    counted; as they are, 0.30, 0.53 and 1.11.
    """

    name: Literal["efficient_gcn"] = "efficient_gcn"
    input_norm: Literal["none"] = "none"
    scale: int = Field(default=0, ge=0, le=4)
    branches: tuple[Branch, ...] = Field(default=("joint", "velocity", "bone"), min_length=1)
    temporal: TemporalKind = "sandglass"
    reach: int = Field(default=2, ge=0, le=10)
    normalisation: Normalisation = "symmetric"

    @model_validator(mode="after")
    def _check_branches(self) -> Self:
        if len(set(self.branches)) < len(self.branches):
            raise ValueError("branches: one stands twice")
        return self

    def build(self, layout: Layout, channels: int, bodies: int) -> GraphEncoder:
        """An EfficientGCN that sees every body by itself."""
        graphs_pvv = normalised(partitions(layout, "distance", self.reach), self.normalisation)
        branches = [InputBranch(self, 2 * channels, graphs_pvv) for _ in self.branches]
        fused = sum(branch.outputs for branch in branches)
        blocks = self.graph_blocks(fused, _MAIN, graphs_pvv)
        stem = FusedBranches(BranchInputs(layout, self.branches), branches)
        return GraphEncoder(self, layout, channels, bodies, blocks, stem=stem)

    def graph_blocks(self, inputs: int, published: Sequence[_Block], graphs_pvv: Tensor) -> list[GraphBlock]:
        """Blocks behind C = `inputs`, at this scale, width and depth.

        A block that strides has at least the layer that does so; others may have none, as in B0's branches.
        """
        blocks = []
        for block in published:
            scaled = max(16, 16 * round(block.channels * _WIDER**self.scale / 16))
            size = BlockSize(inputs, self.channels(scaled), block.stride)
            layers = round(self.depth * block.layers * _DEEPER**self.scale)
            blocks.append(self._block(size, max(layers, int(block.stride > 1)), graphs_pvv))
            inputs = size.outputs
        return blocks

    def _block(self, size: BlockSize, layers: int, graphs_pvv: Tensor) -> GraphBlock:
        temporal = TemporalPart(
            [
                temporal_layer(self.temporal, size.outputs, _WINDOW, 1 if layer else size.stride)
                for layer in range(layers)
            ],
            JointAttention(size.outputs),
            self.dropout,
        )
        return GraphBlock(size, SpatialGraph(size, graphs_pvv), temporal, None, nn.Identity())


class SpatialGraph(nn.Module):
    """Graph convolution on the body's graphs, each edge times its importance; norm, shortcut, Swish."""

    graphs_pvv: Tensor

    def __init__(self, size: BlockSize, graphs_pvv: Tensor) -> None:
        super().__init__()
        self.register_buffer("graphs_pvv", graphs_pvv.clone(), persistent=False)
        self.importance_pvv = nn.Parameter(torch.ones_like(graphs_pvv))
        self.convolution = GraphConvolution(size.inputs, size.outputs, len(graphs_pvv))
        self.norm = FrameNorm(size.outputs)
        self.shortcut = Shortcut(size.inputs, size.outputs)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """The spatial part of a GraphBlock."""
        y_ktvd = self.norm(self.convolution(x_ktvc, self.graphs_pvv * self.importance_pvv), mask_kt)
        return functional.silu(y_ktvd + self.shortcut(x_ktvc, mask_kt))


class TemporalPart(nn.Module):
    """Temporal layers, of which the first has the stride; attention; dropout."""

    def __init__(self, layers: list[TemporalLayer], attention: JointAttention, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.strides = [layer.stride for layer in layers]
        self.attention = attention
        self.dropout = Dropout(dropout)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """The temporal part of a GraphBlock."""
        for layer, stride in zip(self.layers, self.strides, strict=True):
            x_ktvc, mask_kt = layer(x_ktvc, mask_kt), strided(mask_kt, stride)
        y_ktvc: Tensor = self.dropout(self.attention(x_ktvc, mask_kt))
        return y_ktvc


class InputBranch(nn.Module):
    """One branch: the norm of its input, then a spatial and a basic temporal layer, then its blocks."""

    def __init__(self, config: EfficientGCNConfig, inputs: int, graphs_pvv: Tensor) -> None:
        super().__init__()
        channels = config.channels(_STEM)
        self.norm = FrameNorm(inputs)
        self.spatial = SpatialGraph(BlockSize(inputs, channels, 1), graphs_pvv)
        self.temporal = temporal_layer("basic", channels, _WINDOW)
        blocks = config.graph_blocks(channels, _BRANCH, graphs_pvv)
        self.blocks = nn.ModuleList(blocks)
        self.outputs = blocks[-1].size.outputs

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T, V, D) of one branch's input (K, T, V, 2 C)."""
        x_ktvc = self.spatial(self.norm(x_ktvc, mask_kt), mask_kt)
        x_ktvc = self.temporal(x_ktvc, mask_kt)
        for block in self.blocks:
            x_ktvc = block(x_ktvc, mask_kt)
        return x_ktvc


class FusedBranches(nn.Module):
    """The stem of the encoder: what each branch makes of its input, one behind the other."""

    def __init__(self, inputs: BranchInputs, branches: list[InputBranch]) -> None:
        super().__init__()
        self.inputs = inputs
        self.branches = nn.ModuleList(branches)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T, V, B D) of B branches from coordinates (K, T, V, C)."""
        inputs = zip(self.branches, self.inputs(x_ktvc), strict=True)
        return torch.cat([branch(x_ktve, mask_kt) for branch, x_ktve in inputs], dim=3)
