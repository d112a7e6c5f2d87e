"""CTR-GCN, channel-wise topology refinement graph convolution (Chen et al., ICCV 2021, arXiv 2107.12213)."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.mask import frame_mean
from ssl_skeleton.encoders.blocks.multi_scale import MultiScaleUnit
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.shortcut import Shortcut
from ssl_skeleton.encoders.gcn import BlockSize, GraphBlock, GraphConfig, GraphEncoder, Stage
from ssl_skeleton.skeleton.graph import Normalisation, Partition, normalised, partitions
from ssl_skeleton.skeleton.layout import Layout

_STAGES = (Stage(64, 4, 1), Stage(128, 3, 2), Stage(256, 3, 2))
_FIRST_RELATIONS = 8  # of the first block, which sees coordinates, too few to reduce


class CTRGCNConfig(GraphConfig):
    """Sizes as published.

    reduction  by how much the channels are reduced before joints are compared
    """

    name: Literal["ctr_gcn"] = "ctr_gcn"
    partition: Partition = "spatial"
    normalisation: Normalisation = "mean"
    reduction: int = Field(default=8, ge=1)

    def build(self, layout: Layout, channels: int, bodies: int) -> GraphEncoder:
        """A CTR-GCN that sees every body by itself."""
        graphs_pvv = normalised(partitions(layout, self.partition), self.normalisation)
        blocks = [
            GraphBlock(
                size,
                RefinedConvolution(size, graphs_pvv, self._relations(size) if number else _FIRST_RELATIONS),
                MultiScaleUnit(size.outputs, size.stride, self.dropout),
                Shortcut(*size) if number else None,
            )
            for number, size in enumerate(self.block_sizes(channels, _STAGES))
        ]
        return GraphEncoder(self, layout, channels, bodies, blocks)

    def _relations(self, size: BlockSize) -> int:
        return max(1, size.inputs // self.reduction)


class RefinedTopology(nn.Module):
    """A graph for every partition, channel and body: A_p + alpha Q_p (Section 3.2).

    A_p is the same for all channels and bodies; it starts as the body's graph and is learned. Q_p is found
    from the body's features: R relations between every two joints, the tanh of differences between reduced
    features, and from them D channels. Features are means over valid frames. One alpha serves all partitions
    and starts at zero, as in the release.
    """

    def __init__(self, inputs: int, outputs: int, relations: int, graphs_pvv: Tensor) -> None:
        super().__init__()
        parts = len(graphs_pvv)
        self.shared_pvv = nn.Parameter(graphs_pvv.clone())
        self.reduce = nn.Linear(inputs, 2 * parts * relations)
        self.weight_dpr = nn.Parameter(torch.randn(outputs, parts, relations) / relations**0.5)
        self.bias_dp = nn.Parameter(torch.zeros(outputs, parts))
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Graphs (K, D, P, V, V) from features (K, T, V, C); column w of a graph weighs what joint w hears.

        They are many times larger than all that they are made of, so that one product makes them whole.
        """
        basis_kvvi = self._basis(x_ktvc, mask_kt)
        weight_ji = self._weight()  # J = D * P
        bodies, joints = basis_kvvi.shape[:2]
        graphs_kjs = torch.bmm(weight_ji.expand(bodies, -1, -1), basis_kvvi.flatten(1, 2).mT)  # S = V * V
        return graphs_kjs.view(bodies, *self.bias_dp.shape, joints, joints)

    def _basis(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """What graphs are sums of (K, V, V, P * R + 1 + P): relations, one, and the shared topologies."""
        # The mean is taken first: it commutes with the reduction, which has T times less to do then.
        hearing_kvr, heard_kvr = self.reduce(frame_mean(x_ktvc, mask_kt)).chunk(2, dim=-1)
        relations_kvvr = torch.tanh(hearing_kvr[:, None] - heard_kvr[:, :, None])
        others_vvi = functional.pad(self.shared_pvv.permute(2, 1, 0), (1, 0), value=1)
        others_kvvi = others_vvi.to(relations_kvvr.dtype).expand(relations_kvvr.shape[0], -1, -1, -1)
        return torch.cat([relations_kvvr, others_kvvi], dim=3)

    def _weight(self) -> Tensor:
        """How much of each is in a graph, (D * P, P * R + 1 + P); a partition has relations of its own."""
        own_pp = torch.eye(len(self.shared_pvv), dtype=self.alpha.dtype, device=self.alpha.device)
        weight_dppr = (self.alpha * self.weight_dpr)[:, :, None] * own_pp[:, :, None]
        bias_dp1 = (self.alpha * self.bias_dp)[:, :, None]
        shared_dpp = own_pp.expand(len(bias_dp1), -1, -1)
        return torch.cat([weight_dppr.flatten(2), bias_dp1, shared_dpp], dim=2).flatten(0, 1)


class RefinedConvolution(nn.Module):
    """Graph convolution, each channel on graphs of its own; norm, shortcut, ReLU.

    The norm's scale starts near zero, as in the release: at first a block is its temporal part alone.
    """

    def __init__(self, size: BlockSize, graphs_pvv: Tensor, relations: int) -> None:
        super().__init__()
        self.topology = RefinedTopology(size.inputs, size.outputs, relations, graphs_pvv)
        self.transform = nn.Linear(size.inputs, size.outputs * len(graphs_pvv), bias=False)
        self.norm = FrameNorm(size.outputs)
        nn.init.constant_(self.norm.weight, 1e-6)
        self.shortcut = Shortcut(size.inputs, size.outputs)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """The spatial part of a GraphBlock."""
        graphs_kdpvv = self.topology(x_ktvc, mask_kt)
        outputs, parts = graphs_kdpvv.shape[1:3]
        parts_ktvdp = self.transform(x_ktvc).view(*x_ktvc.shape[:3], outputs, parts)
        # A matrix for every body and channel: one product mixes the joints and adds up the partitions.
        parts_bti = parts_ktvdp.permute(0, 3, 1, 4, 2).flatten(3).flatten(0, 1)  # B = K * D, I = P * V
        y_btv = torch.bmm(parts_bti, graphs_kdpvv.flatten(2, 3).flatten(0, 1))
        y_ktvd = y_btv.view(-1, outputs, *y_btv.shape[1:]).permute(0, 2, 3, 1).contiguous()
        return functional.relu(self.norm(y_ktvd, mask_kt) + self.shortcut(x_ktvc, mask_kt))
