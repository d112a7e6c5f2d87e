"""ST-GCN, the spatial temporal graph convolutional network (Yan et al., AAAI 2018, arXiv 1801.07455)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.graph_convolution import GraphConvolution
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.shortcut import Shortcut
from ssl_skeleton.encoders.blocks.temporal_convolution import TemporalUnit
from ssl_skeleton.encoders.gcn import BlockSize, GraphBlock, GraphConfig, GraphEncoder, Stage
from ssl_skeleton.skeleton.graph import Normalisation, Partition, normalised, partitions
from ssl_skeleton.skeleton.layout import Layout


class STGCNConfig(GraphConfig):
    """Sizes as published: nine `blocks` in the paper; in its release ten, the first stage having one more.

    The graphs are those of the release. `spatial` counts bones to the root, where the paper takes distances
    to the centre of gravity; `mean` divides by all that a joint hears, and the paper's eq. 10 normalises each
    part by itself, symmetrically. `partition: uniform` with `normalisation: symmetric` is the plain GCN,
    D^-1/2 (A + I) D^-1/2. Without `edge_importance` the graph is not learned.
    """

    name: Literal["st_gcn"] = "st_gcn"
    dropout: float = Field(default=0.5, ge=0, lt=1)
    partition: Partition = "spatial"
    normalisation: Normalisation = "mean"
    edge_importance: bool = True
    blocks: Literal[9, 10] = 9

    def build(self, layout: Layout, channels: int, bodies: int) -> GraphEncoder:
        """An ST-GCN that sees every body by itself."""
        parts_pvv = partitions(layout, self.partition)
        # The neighbourhood is normalised as a whole and then parted: the parts of a joint weigh one together.
        graphs_pvv = parts_pvv * normalised(parts_pvv.sum(dim=0), self.normalisation)
        stages = (Stage(64, self.blocks - 6, 1), Stage(128, 3, 2), Stage(256, 3, 2))
        blocks = [
            GraphBlock(
                size,
                WeightedGraph(self, size, graphs_pvv),
                TemporalUnit(size.outputs, 9, size.stride, self.dropout),
                Shortcut(*size) if number else None,
            )
            for number, size in enumerate(self.block_sizes(channels, stages))
        ]
        return GraphEncoder(self, layout, channels, bodies, blocks)


class WeightedGraph(nn.Module):
    """Graph convolution on the body's graphs, each edge times its learned importance; norm, ReLU."""

    graphs_pvv: Tensor

    def __init__(self, config: STGCNConfig, size: BlockSize, graphs_pvv: Tensor) -> None:
        super().__init__()
        self.register_buffer("graphs_pvv", graphs_pvv.clone(), persistent=False)
        self.importance_pvv = nn.Parameter(torch.ones_like(graphs_pvv)) if config.edge_importance else None
        self.convolution = GraphConvolution(size.inputs, size.outputs, len(graphs_pvv))
        self.norm = FrameNorm(size.outputs)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """The spatial part of a GraphBlock."""
        graphs_pvv = self.graphs_pvv if self.importance_pvv is None else self.graphs_pvv * self.importance_pvv
        return functional.relu(self.norm(self.convolution(x_ktvc, graphs_pvv), mask_kt))
