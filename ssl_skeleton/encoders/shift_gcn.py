"""Shift-GCN, the shift graph convolutional network (Cheng et al., CVPR 2020).

Its convolutions are pointwise products: what other joints and frames hold is shifted to each place before and
after them. Its four streams, of joints and bones and of how they move, are four encoders.
"""

from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.dropout import Dropout
from ssl_skeleton.encoders.blocks.mask import cleared, strided
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.shortcut import Shortcut
from ssl_skeleton.encoders.gcn import BlockSize, GraphBlock, GraphConfig, GraphEncoder, Stage
from ssl_skeleton.ops.graph_shift import graph_shift, local_index, non_local_index, takers
from ssl_skeleton.ops.kernel import Kernel
from ssl_skeleton.ops.temporal_shift import temporal_shift
from ssl_skeleton.skeleton.graph import adjacency
from ssl_skeleton.skeleton.layout import Layout

_STAGES = (Stage(64, 4, 1), Stage(128, 3, 2), Stage(256, 3, 2))  # ten units, as in the release


class ShiftGCNConfig(GraphConfig):
    """Sizes as published.

    spatial        `non_local` takes channels from all joints (Section 3.2.2), `local` from those that a bone
                   joins (Section 3.2.1)
    temporal       `adaptive` learns how many frames ahead or back each channel looks (Section 3.3.2); `naive`
                   lets a third of them look one frame ahead, a third one back (Section 3.3.1)
    joint_offsets  the adaptive shift also moves along the list of joints, as published weights do
    bias           biases before norms too, as published weights have them; norms take them out in training
    kernel         of the shifts, see `ops.kernel.use_triton`
    """

    name: Literal["shift_gcn"] = "shift_gcn"
    spatial: Literal["non_local", "local"] = "non_local"
    temporal: Literal["adaptive", "naive"] = "adaptive"
    joint_offsets: bool = False
    bias: bool = False
    kernel: Kernel = "auto"

    @model_validator(mode="after")
    def _check_offsets(self) -> Self:
        if self.joint_offsets and self.temporal == "naive":
            raise ValueError("joint_offsets: true needs learned offsets; set temporal to adaptive")
        return self

    def build(self, layout: Layout, channels: int, bodies: int) -> GraphEncoder:
        """A Shift-GCN that sees every body by itself."""
        blocks = [
            GraphBlock(
                size,
                SpatialUnit(self, size, layout),
                TemporalUnit(self, size),
                Shortcut(*size, bias=self.bias) if number else None,
            )
            for number, size in enumerate(self.block_sizes(channels, _STAGES))
        ]
        return GraphEncoder(self, layout, channels, bodies, blocks)

    def index_lists(self, layout: Layout, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        """The lists of the shifts before and after a product, (V * inputs,) and (V * outputs,).

        The second non-local shift undoes the first. No shift undoes a local one: the second is another.
        """
        if self.spatial == "non_local":
            joints = len(layout.joints)
            return non_local_index(joints, inputs), non_local_index(joints, outputs, back=True)
        neighbours = [row_v.nonzero().flatten().tolist() for row_v in adjacency(layout)]
        return local_index(neighbours, inputs), local_index(neighbours, outputs)


class GraphShift(nn.Module):
    """The graph shift by a list that is saved with the weights, since those belong to it."""

    index_i: Tensor
    takers_id: Tensor

    def __init__(self, index_i: Tensor, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.register_buffer("index_i", index_i)
        self.register_buffer("takers_id", takers(index_i), persistent=False)
        self.register_load_state_dict_post_hook(_find_takers)  # type: ignore[no-untyped-call]

    def forward(self, x_ktvc: Tensor, mask_vc: Tensor | None = None) -> Tensor:
        """Features (K, T, V, C), with the feature mask (V, C); see `ops.graph_shift`."""
        return graph_shift(x_ktvc, self.index_i, mask_vc, self.takers_id, kernel=self.kernel)


def _find_takers(module: nn.Module, _: object) -> None:
    """Let a shift know the list that was loaded into it."""
    if isinstance(module, GraphShift):
        module.takers_id = takers(module.index_i)


class TemporalShift(nn.Module):
    """The shift along time of C channels; T' = ceil(T / stride).

    Learned offsets start anywhere from a frame back to a frame ahead, as in the release. Those in joints
    start next to zero, on either side of it: some channels feel the slope there, some that here.
    """

    frames_c: Tensor

    def __init__(self, config: ShiftGCNConfig, channels: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = config.kernel, stride
        self.ahead = 0.0
        self.joints_c: nn.Parameter | None = None
        if config.temporal == "naive":
            third_c = torch.arange(channels) * 3 // channels
            self.register_buffer("frames_c", third_c - 1.0, persistent=False)
            return
        self.ahead = 0.0 if stride == 1 else 0.5  # published weights count from there
        self.frames_c = nn.Parameter(torch.empty(channels).uniform_(-1, 1))
        if config.joint_offsets:
            self.joints_c = nn.Parameter(torch.empty(channels).uniform_(-1e-8, 1e-8))

    def forward(self, x_ktvc: Tensor) -> Tensor:
        """Features (K, T', V, C) of features that are zero past a clip's length; see `ops.temporal_shift`."""
        frames_c = self.frames_c + self.ahead
        return temporal_shift(x_ktvc, frames_c, self.joints_c, stride=self.stride, kernel=self.kernel)


class SpatialUnit(nn.Module):
    """Shift with the feature mask, product, shift, norm of every joint's every channel; shortcut, ReLU."""

    def __init__(self, config: ShiftGCNConfig, size: BlockSize, layout: Layout) -> None:
        super().__init__()
        index_in, index_out = config.index_lists(layout, size.inputs, size.outputs)
        joints = len(layout.joints)
        self.mask_vc = nn.Parameter(torch.zeros(joints, size.inputs))
        self.shift_in = GraphShift(index_in, config.kernel)
        self.product = nn.Linear(size.inputs, size.outputs, bias=config.bias)
        self.shift_out = GraphShift(index_out, config.kernel)
        self.norm = FrameNorm(joints * size.outputs)
        self.shortcut = Shortcut(size.inputs, size.outputs, bias=config.bias)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """The spatial part of a GraphBlock."""
        y_ktvd = self.shift_out(self.product(self.shift_in(x_ktvc, self.mask_vc)))
        y_ktvd = self.norm(y_ktvd.flatten(2)[:, :, None], mask_kt).view(y_ktvd.shape)
        return functional.relu(y_ktvd + self.shortcut(x_ktvc, mask_kt), inplace=True)


class TemporalUnit(nn.Module):
    """Norm, shift, product, ReLU, shift with the stride, norm; dropout."""

    def __init__(self, config: ShiftGCNConfig, size: BlockSize) -> None:
        super().__init__()
        self.stride = size.stride
        self.norm_in = FrameNorm(size.outputs)
        self.shift_in = TemporalShift(config, size.outputs, 1)
        self.product = nn.Linear(size.outputs, size.outputs)
        self.shift_out = TemporalShift(config, size.outputs, size.stride)
        self.norm_out = FrameNorm(size.outputs)
        self.dropout = Dropout(config.dropout)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """The temporal part of a GraphBlock."""
        y_ktvc = self.product(self.shift_in(self.norm_in(x_ktvc, mask_kt)))
        # The first shift carries features past a clip's length, and the bias puts some there.
        y_ktvc = self.shift_out(cleared(functional.relu(y_ktvc, inplace=True), mask_kt))
        y_ktvc = self.norm_out(y_ktvc, strided(mask_kt, self.stride))
        out_ktvc: Tensor = self.dropout(y_ktvc)
        return out_ktvc
