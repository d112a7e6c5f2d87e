"""2s-AGCN, the adaptive graph convolutional network (Shi et al., CVPR 2019, arXiv 1805.07694).

Its two streams, joints and bones, are two encoders; a recipe trains them as two stages.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.graph_convolution import GraphConvolution
from ssl_skeleton.encoders.blocks.mask import frame_count
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.shortcut import Shortcut
from ssl_skeleton.encoders.blocks.temporal_convolution import TemporalUnit
from ssl_skeleton.encoders.gcn import BlockSize, GraphBlock, GraphConfig, GraphEncoder, Stage
from ssl_skeleton.skeleton.graph import Normalisation, Partition, normalised, partitions
from ssl_skeleton.skeleton.layout import Layout

_STAGES = (Stage(64, 4, 1), Stage(128, 3, 2), Stage(256, 3, 2))  # ten blocks, as in the release


class AGCNConfig(GraphConfig):
    """Sizes as published."""

    name: Literal["agcn"] = "agcn"
    partition: Partition = "spatial"
    normalisation: Normalisation = "mean"

    def build(self, layout: Layout, channels: int, bodies: int) -> GraphEncoder:
        """An AGCN that sees every body by itself."""
        graphs_pvv = normalised(partitions(layout, self.partition), self.normalisation)
        blocks = [
            GraphBlock(
                size,
                AdaptiveConvolution(size, graphs_pvv),
                TemporalUnit(size.outputs, 9, size.stride, self.dropout),
                Shortcut(*size) if number else None,
            )
            for number, size in enumerate(self.block_sizes(channels, _STAGES))
        ]
        return GraphEncoder(self, layout, channels, bodies, blocks)


class AdaptiveGraph(nn.Module):
    """Graphs A + B + C: the body's, one learned, and one that each body's own features give (eqs. 3 and 4).

    B starts at zero. The paper starts the embeddings of C there too, where they would have no gradient; here
    they start at random, as in its release.
    """

    fixed_pvv: Tensor

    def __init__(self, inputs: int, embedding: int, graphs_pvv: Tensor) -> None:
        super().__init__()
        self.register_buffer("fixed_pvv", graphs_pvv.clone(), persistent=False)
        self.learned_pvv = nn.Parameter(torch.zeros_like(graphs_pvv))
        self.embed = nn.Linear(inputs, 2 * len(graphs_pvv) * embedding, bias=False)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Graphs (P, K, V, V) from features (K, T, V, C).

        In C the weights of all that a joint hears sum to one, as in the release. Affinities are means over
        valid frames and channels.
        """
        bodies, frames, joints, _ = x_ktvc.shape
        embedded = self.embed(x_ktvc).view(bodies, frames, joints, 2, len(self.fixed_pvv), -1)
        hearing, heard = embedded.permute(3, 4, 0, 2, 1, 5).flatten(-2)  # each (P, K, V, T * E)
        valid = frame_count(x_ktvc, mask_kt)
        affinity_pkvv = hearing @ heard.transpose(-1, -2) / (valid * embedded.shape[-1])
        graphs_pvv = self.fixed_pvv + self.learned_pvv
        graphs_pkvv: Tensor = graphs_pvv[:, None] + affinity_pkvv.softmax(dim=-1, dtype=graphs_pvv.dtype)
        return graphs_pkvv


class AdaptiveConvolution(nn.Module):
    """Graph convolution on an adaptive graph; norm, shortcut, ReLU."""

    def __init__(self, size: BlockSize, graphs_pvv: Tensor) -> None:
        super().__init__()
        self.graph = AdaptiveGraph(size.inputs, size.outputs // 4, graphs_pvv)
        self.convolution = GraphConvolution(size.inputs, size.outputs, len(graphs_pvv))
        self.norm = FrameNorm(size.outputs)
        self.shortcut = Shortcut(size.inputs, size.outputs)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """The spatial part of a GraphBlock."""
        y_ktvd = self.norm(self.convolution(x_ktvc, self.graph(x_ktvc, mask_kt)), mask_kt)
        return functional.relu(y_ktvd + self.shortcut(x_ktvc, mask_kt), inplace=True)
