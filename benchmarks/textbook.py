"""ST-GCN and CTR-GCN as they are usually written, to compare with: contiguous (N, C, T, V), step by step.

Written from the papers. Bodies are folded into the batch, pointwise convolutions run over all frames, an
einsum mixes the joints, every norm is a BatchNorm2d. Lengths and absent bodies are not known here: a clip
must have all of its frames and bodies. `st_gcn_textbook` and `ctr_gcn_textbook` give the textbook form of an
encoder, with its weights.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.multi_scale import MultiScaleUnit
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.shortcut import Shortcut
from ssl_skeleton.encoders.gcn import BlockSize, GraphEncoder


class Textbook(nn.Module):
    """BatchNorm on the coordinates, blocks, the mean over joints and bodies."""

    def __init__(self, blocks: Iterable[nn.Module], joints: int, channels: int) -> None:
        super().__init__()
        self.input_norm = nn.BatchNorm1d(joints * channels)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x_nctvm: Tensor) -> Tensor:
        """Features (N, T', D) of clips; a step of the last block is not repeated for its frames."""
        clips, channels, frames, joints, bodies = x_nctvm.shape
        x = x_nctvm.permute(0, 4, 3, 1, 2).contiguous().view(clips * bodies, joints * channels, frames)
        x = self.input_norm(x).view(-1, joints, channels, frames).permute(0, 2, 3, 1).contiguous()
        for block in self.blocks:
            x = block(x)
        features_ntd: Tensor = x.mean(dim=3).unflatten(0, (clips, bodies)).mean(dim=1).transpose(1, 2)
        return features_ntd


def pointwise(inputs: int, outputs: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    """A 1 x 1 convolution."""
    return nn.Conv2d(inputs, outputs, 1, (stride, 1), bias=bias)


def along_time(channels: int, kernel: int, stride: int, dilation: int = 1) -> nn.Conv2d:
    """A kernel x 1 convolution that keeps the frames but for its stride."""
    padding = (dilation * (kernel // 2), 0)
    return nn.Conv2d(channels, channels, (kernel, 1), (stride, 1), padding, (dilation, 1), bias=False)


class Residual(nn.Module):
    """The input, or the input through a pointwise convolution and a norm."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        changes = inputs != outputs or stride != 1
        self.pointwise = pointwise(inputs, outputs, stride) if changes else None
        self.norm = nn.BatchNorm2d(outputs) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """What is added."""
        if self.pointwise is None or self.norm is None:
            return x
        added: Tensor = self.norm(self.pointwise(x))
        return added


class STGCNBlock(nn.Module):
    """ST-GCN (arXiv 1801.07455): one convolution for all parts, an einsum over them, a 9 x 1 convolution."""

    def __init__(self, size: BlockSize, graphs_pvv: Tensor, dropout: float, *, first: bool) -> None:
        super().__init__()
        self.register_buffer("graphs_pvw", graphs_pvv.mT.contiguous())  # column w: what joint w hears
        self.importance_pvw = nn.Parameter(torch.ones_like(graphs_pvv))
        self.parts = pointwise(size.inputs, len(graphs_pvv) * size.outputs)
        self.spatial_norm = nn.BatchNorm2d(size.outputs)
        self.temporal = along_time(size.outputs, 9, size.stride)
        self.temporal_norm = nn.BatchNorm2d(size.outputs)
        self.dropout = nn.Dropout(dropout, inplace=True)
        self.residual = None if first else Residual(*size)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, D, T', V) of (N, C, T, V)."""
        z = self.parts(x).unflatten(1, (len(self.graphs_pvw), -1))
        y = torch.einsum("nkctv,kvw->nctw", z, self.graphs_pvw * self.importance_pvw).contiguous()
        y = functional.relu(self.spatial_norm(y), inplace=True)
        y = self.dropout(self.temporal_norm(self.temporal(y)))
        return functional.relu(y if self.residual is None else y + self.residual(x), inplace=True)


class CTRGC(nn.Module):
    """One graph of CTR-GCN (arXiv 2107.12213, Section 3.2), refined for each channel of each clip.

    The embeddings run over all frames before their mean over time, as is usual.
    """

    def __init__(self, inputs: int, outputs: int, relations: int) -> None:
        super().__init__()
        self.hearing = pointwise(inputs, relations, bias=True)
        self.heard = pointwise(inputs, relations, bias=True)
        self.values = pointwise(inputs, outputs)
        self.expand = pointwise(relations, outputs, bias=True)

    def forward(self, x: Tensor, graph_vv: Tensor, share: Tensor) -> Tensor:
        """Features (N, D, T, V) of (N, C, T, V)."""
        hearing_nrv, heard_nrv = self.hearing(x).mean(dim=2), self.heard(x).mean(dim=2)
        relations_nrvv = torch.tanh(hearing_nrv[..., :, None] - heard_nrv[..., None, :])
        graphs_ncuv = self.expand(relations_nrvv) * share + graph_vv
        return torch.einsum("ncuv,nctv->nctu", graphs_ncuv, self.values(x))


class MultiScale(nn.Module):
    """The temporal part of CTR-GCN (Fig. 3c): four branches, each of a quarter of the channels."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        quarter = channels // 4

        def reduced(*layers: nn.Module) -> nn.Sequential:
            """A branch behind a pointwise convolution; norm at its end."""
            before = (pointwise(channels, quarter), nn.BatchNorm2d(quarter), nn.ReLU(inplace=True))
            return nn.Sequential(*before, *layers, nn.BatchNorm2d(quarter))

        self.branches = nn.ModuleList(
            [
                reduced(along_time(quarter, 5, stride)),
                reduced(along_time(quarter, 5, stride, dilation=2)),
                reduced(nn.MaxPool2d((3, 1), (stride, 1), (1, 0))),
                nn.Sequential(pointwise(channels, quarter, stride), nn.BatchNorm2d(quarter)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, T', V) of (N, C, T, V)."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class CTRGCNBlock(nn.Module):
    """Three CTRGC side by side, their sum; then the multi-scale temporal convolution."""

    def __init__(self, size: BlockSize, graphs_pvv: Tensor, relations: int, *, first: bool) -> None:
        super().__init__()
        self.graphs_pvv = nn.Parameter(graphs_pvv.clone())
        self.share = nn.Parameter(torch.zeros(1))
        self.parts = nn.ModuleList(CTRGC(size.inputs, size.outputs, relations) for _ in graphs_pvv)
        self.spatial_norm = nn.BatchNorm2d(size.outputs)
        self.spatial_residual = Residual(size.inputs, size.outputs)
        self.temporal = MultiScale(size.outputs, size.stride)
        self.residual = None if first else Residual(*size)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, D, T', V) of (N, C, T, V)."""
        parts = zip(self.parts, self.graphs_pvv, strict=True)
        y = sum(part(x, graph_vv, self.share) for part, graph_vv in parts)
        y = functional.relu(self.spatial_norm(y) + self.spatial_residual(x), inplace=True)
        y = self.temporal(y)
        return functional.relu(y if self.residual is None else y + self.residual(x), inplace=True)


@torch.no_grad()
def st_gcn_textbook(encoder: GraphEncoder) -> Textbook:
    """The textbook form of an ST-GCN, with its weights; the input norm must be that of bodies."""
    blocks = []
    for number, ours in enumerate(encoder.blocks):
        graphs_pvv = ours.spatial.graphs_pvv
        block = STGCNBlock(ours.size, graphs_pvv, ours.temporal.dropout.p, first=number == 0).to(graphs_pvv)
        if ours.spatial.importance_pvv is not None:
            block.importance_pvw.copy_(ours.spatial.importance_pvv.mT)
        copy_pointwise(ours.spatial.convolution.weight_pcd.mT.flatten(0, 1), block.parts)
        block.spatial_norm.load_state_dict(ours.spatial.norm.state_dict())
        block.temporal.load_state_dict(ours.temporal.convolution.convolution.state_dict())
        block.temporal_norm.load_state_dict(ours.temporal.norm.state_dict())
        copy_residual(ours.shortcut, block.residual)
        blocks.append(block)
    return finished(encoder, blocks)


@torch.no_grad()
def ctr_gcn_textbook(encoder: GraphEncoder) -> Textbook:
    """The textbook form of a CTR-GCN, with its weights; the input norm must be that of bodies."""
    blocks = []
    for number, ours in enumerate(encoder.blocks):
        spatial, topology = ours.spatial, ours.spatial.topology
        parts, relations = topology.weight_dpr.shape[1:]
        block = CTRGCNBlock(ours.size, topology.shared_pvv, relations, first=number == 0).to(topology.alpha)
        block.share.copy_(topology.alpha)
        reduced_2prc = topology.reduce.weight.unflatten(0, (2, parts, -1))
        bias_2pr = topology.reduce.bias.unflatten(0, (2, parts, -1))
        values_dpc = spatial.transform.weight.unflatten(0, (-1, parts))
        for part, ctrgc in enumerate(block.parts):
            copy_pointwise(reduced_2prc[0, part], ctrgc.hearing, bias_2pr[0, part])
            copy_pointwise(reduced_2prc[1, part], ctrgc.heard, bias_2pr[1, part])
            copy_pointwise(values_dpc[:, part], ctrgc.values)
            copy_pointwise(topology.weight_dpr[:, part], ctrgc.expand, topology.bias_dp[:, part])
        block.spatial_norm.load_state_dict(spatial.norm.state_dict())
        copy_residual(spatial.shortcut, block.spatial_residual)
        copy_multi_scale(ours.temporal, block.temporal)
        copy_residual(ours.shortcut, block.residual)
        blocks.append(block)
    return finished(encoder, blocks)


def copy_multi_scale(ours: MultiScaleUnit, theirs: MultiScale) -> None:
    """Copy the weights of the branches; ours have norms in common."""
    near, far, pooled, plain = theirs.branches
    reducing = zip(ours.reduce.weight.chunk(3), channels_of(ours.reduced_norm, 3), strict=True)
    for branch, (weight_dc, norm) in zip((near, far, pooled), reducing, strict=True):
        copy_pointwise(weight_dc, branch[0])
        branch[1].load_state_dict(norm)
    near[3].load_state_dict(ours.near.convolution.state_dict())
    far[3].load_state_dict(ours.far.convolution.state_dict())
    copy_pointwise(ours.pointwise.weight, plain[0])
    for branch, norm in zip(theirs.branches, channels_of(ours.norm, 4), strict=True):
        branch[-1].load_state_dict(norm)


def channels_of(norm: FrameNorm, parts: int) -> Iterator[dict[str, Tensor]]:
    """The states of the norms that have a part of the channels each."""
    for part in range(parts):
        yield {
            name: values.chunk(parts)[part] if values.dim() else values
            for name, values in norm.state_dict().items()
        }


def copy_pointwise(weight_dc: Tensor, layer: nn.Conv2d, bias_d: Tensor | None = None) -> None:
    """Copy the weights of a 1 x 1 convolution."""
    layer.weight.copy_(weight_dc[..., None, None])
    if layer.bias is not None and bias_d is not None:
        layer.bias.copy_(bias_d)


def copy_residual(ours: Shortcut | None, theirs: Residual | None) -> None:
    """Copy what has weights."""
    if theirs is not None and theirs.pointwise is not None:
        copy_pointwise(ours.pointwise.weight, theirs.pointwise)
        theirs.norm.load_state_dict(ours.norm.state_dict())


def finished(encoder: GraphEncoder, blocks: Sequence[nn.Module]) -> Textbook:
    """The blocks behind the input norm."""
    channels, norm = encoder.blocks[0].size.inputs, encoder.input_norm
    textbook = Textbook(blocks, len(norm.weight) // channels, channels).to(norm.weight)
    textbook.input_norm.load_state_dict(norm.state_dict())
    return textbook
