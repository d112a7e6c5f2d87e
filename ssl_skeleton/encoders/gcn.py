"""What all graph encoders share: which bodies and frames they see, and how bodies become a clip."""

import math
from abc import ABC
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.base import Encoder, EncoderConfig
from ssl_skeleton.encoders.blocks.dropout import dropout_of
from ssl_skeleton.encoders.blocks.mask import strided
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.shortcut import Shortcut
from ssl_skeleton.encoders.inserts import AnyInsert
from ssl_skeleton.encoders.inserts.base import InsertConfig
from ssl_skeleton.encoders.tracing import padded
from ssl_skeleton.errors import UserError
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
    input_norm     `body` normalises the coordinates of all bodies alike, V * C channels; `clip` gives each
                   body of a clip channels of its own, M * V * C, as 2s-AGCN's release and later ones do;
                   `none` leaves the coordinates as they are
    inserts        what is put into the blocks
    """

    width: float = Field(default=1, gt=0, le=16)
    depth: float = Field(default=1, gt=0, le=16)
    dropout: float = Field(default=0, ge=0, lt=1)
    absent_bodies: Literal["skip", "count"] = "skip"
    input_norm: Literal["body", "clip", "none"] = "body"
    inserts: tuple[AnyInsert, ...] = ()

    @model_validator(mode="after")
    def _check_bodies(self) -> Self:
        if self.input_norm == "clip" and self.absent_bodies == "skip":
            raise ValueError("input_norm: clip sees absent bodies too; set absent_bodies to count")
        return self

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


class GraphBlock(nn.Module):
    """A block of a graph encoder: a spatial part, a temporal part, a shortcut around both, a ReLU.

    All parts are called with features (K, T, V, C) of K bodies and the mask (K, T) of the valid frames, None
    when all are; features are zero in other frames, when they come and when they go. `spatial` mixes the
    joints of a frame, and gives D channels; `temporal` mixes frames along time, and keeps the first of every
    `stride`: T' = ceil(T / stride), of which those are valid whose frame is (`strided`). Bodies meet only in
    norms. `shortcut` is called with the mask (K, T') of its output.
    """

    def __init__(
        self,
        size: BlockSize,
        spatial: nn.Module,
        temporal: nn.Module,
        shortcut: Shortcut | None,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        self.spatial = spatial
        self.temporal = temporal
        self.shortcut = shortcut
        self.activation = nn.ReLU(inplace=True) if activation is None else activation
        self.start, self.series, self.parallel, self.end = (nn.ModuleList() for _ in range(4))  # inserts

    def insert(self, config: InsertConfig) -> None:
        """Put an insert where its config says, behind what stands there already."""
        there: nn.ModuleList = getattr(self, config.place)
        there.append(config.build(self.size.inputs if config.place == "start" else self.size.outputs))

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T', V, D)."""
        for insert in self.start:
            x_ktvc = insert(x_ktvc, mask_kt)
        y_ktvd = self.spatial(x_ktvc, mask_kt)
        for insert in self.series:
            y_ktvd = insert(y_ktvd, mask_kt)
        out_ktvd: Tensor = self.temporal(y_ktvd, mask_kt)
        for insert in self.parallel:
            out_ktvd = out_ktvd + insert(y_ktvd, mask_kt)[:, :: self.size.stride]
        mask_kt = strided(mask_kt, self.size.stride)
        if self.shortcut is not None:
            out_ktvd = out_ktvd + self.shortcut(x_ktvc, mask_kt)
        out_ktvd = self.activation(out_ktvd)
        for insert in self.end:
            out_ktvd = insert(out_ktvd, mask_kt)
        return out_ktvd


class Bodies(NamedTuple):
    """The K bodies of a batch: their coordinates (K, T, V, C), valid frames (K, T), and clips, bool (N, M).

    `mask_kt` is None when all frames are valid. They come in the order of `taken_nm`.
    """

    x_ktvc: Tensor
    mask_kt: Tensor | None
    taken_nm: Tensor


class GraphEncoder(Encoder):
    """Blocks on the bodies of a clip, then the mean over their joints, and over the clip's bodies.

    The coordinates go through a BatchNorm first (ST-GCN, arXiv 1801.07455, Section 4), and through a `stem`
    where there is one, a module that is called like a block. A step of the last block stands for as many
    frames as the strides make, and is repeated for each of them: T' = T. Else a clip in a longer batch would
    seem to have more valid steps than the clip alone.
    """

    def __init__(
        self,
        config: GraphConfig,
        layout: Layout,
        channels: int,
        bodies: int,
        blocks: Sequence[GraphBlock],
        *,
        stem: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.dim = blocks[-1].size.outputs
        self.skip_absent = config.absent_bodies == "skip"
        self.sizes = [block.size for block in blocks]
        self.strides = [size.stride for size in self.sizes]
        self.norms_clips, self.norms_bodies = config.input_norm == "clip", config.input_norm == "body"
        if self.norms_clips or self.norms_bodies:
            self.input_norm = FrameNorm(len(layout.joints) * channels * (bodies if self.norms_clips else 1))
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        for insert in config.inserts:
            for number in range(len(blocks)) if insert.blocks is None else insert.blocks:
                if number >= len(blocks):
                    raise UserError(
                        f"encoder.inserts: {insert.name} wants block {number}, but {config.name} has blocks "
                        f"0 to {len(blocks) - 1}"
                    )
                blocks[number].insert(insert)

    def layers(self) -> list[list[nn.Parameter]]:
        """What comes before the blocks, such as input norm and stem, where there is any; and the blocks."""
        before = [values for name, values in self.named_parameters() if not name.startswith("blocks.")]
        return [layer for layer in (before, *([*block.parameters()] for block in self.blocks)) if layer]

    def forward(self, x_nctvm: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, D); zero past a clip's length, but for the rest of its last step."""
        x_ktvc, mask_kt, taken_nm = self.enter(padded(x_nctvm, math.prod(self.strides)), lengths)
        with dropout_of(taken_nm):
            for block, stride in zip(self.blocks, self.strides, strict=True):
                x_ktvc, mask_kt = block(x_ktvc, mask_kt), strided(mask_kt, stride)
        return self.leave(x_ktvc, taken_nm, x_nctvm.shape[2])

    def enter(self, x_nctvm: Tensor, lengths: Tensor, taken_nm: Tensor | None = None) -> Bodies:
        """What the first block sees of clips (N, C, T, V, M) with `lengths` (N,) valid frames.

        The bodies of `taken_nm` are taken, bool (N, M); by default those that are there.
        """
        mask_nt = frame_mask(lengths, x_nctvm.shape[2])
        x_nctvm = torch.where(mask_nt[:, None, :, None, None], x_nctvm, 0)
        x_nmtvc = x_nctvm.permute(0, 4, 2, 3, 1)
        if taken_nm is None:
            taken_nm = self._taken(x_nctvm)
        if self.norms_clips:
            x_nmtvc = self._norm_clips(x_nmtvc, mask_nt)
        x_ktvc, mask_kt = _picked(x_nmtvc, mask_nt, taken_nm)
        if self.norms_bodies:  # a frame's coordinates are the channels of one joint here
            x_ktvc = self.input_norm(x_ktvc.flatten(2)[:, :, None], mask_kt).view(x_ktvc.shape)
        if self.stem is not None:
            with dropout_of(taken_nm):
                x_ktvc = self.stem(x_ktvc, mask_kt)
        return Bodies(x_ktvc, mask_kt, taken_nm)

    def _norm_clips(self, x_nmtvc: Tensor, mask_nt: Tensor) -> Tensor:
        """The coordinates of all bodies as the channels of one frame."""
        x_ntmvc = x_nmtvc.transpose(1, 2)
        normal_ntmvc = self.input_norm(x_ntmvc.flatten(2)[:, :, None], mask_nt).view(x_ntmvc.shape)
        normal_nmtvc: Tensor = normal_ntmvc.transpose(1, 2)
        return normal_nmtvc

    def leave(self, x_ktvc: Tensor, taken_nm: Tensor, frames: int) -> Tensor:
        """Features (N, T, D), T = `frames`, from what the last block gives."""
        features_nsd = _mean_over_bodies(x_ktvc.mean(dim=2), taken_nm)
        return repeated(features_nsd, math.prod(self.strides), frames)

    def _taken(self, x_nctvm: Tensor) -> Tensor:
        """Which bodies are taken, bool (N, M): those seen anywhere in the clip, or else the first."""
        if not self.skip_absent:
            return x_nctvm.new_ones(x_nctvm.shape[0], x_nctvm.shape[4], dtype=torch.bool)
        present_nm = (x_nctvm != 0).flatten(1, 3).any(dim=1)
        nobody_n1 = ~present_nm.any(dim=1, keepdim=True)
        return present_nm | (nobody_n1 & (torch.arange(present_nm.shape[1], device=x_nctvm.device) == 0))


def repeated(features_nsd: Tensor, stride: int, frames: int) -> Tensor:
    """Features (N, T, D), T = `frames`, from those of steps that stand for `stride` frames each."""
    steps_t = torch.arange(frames, device=features_nsd.device) // stride
    return features_nsd.index_select(1, steps_t)


def _picked(x_nmtvc: Tensor, mask_nt: Tensor, taken_nm: Tensor) -> tuple[Tensor, Tensor | None]:
    """The bodies that are taken, one after the other, and their valid frames; None when all are.

    A compiled or exported graph cannot know how many those are: it has all of them, in which a body that is
    not taken has no valid frame. What comes out is the same.
    """
    if torch.compiler.is_compiling():
        mask_nmt = mask_nt[:, None] & taken_nm[:, :, None]
        return torch.where(mask_nmt[..., None, None], x_nmtvc, 0).flatten(0, 1), mask_nmt.flatten(0, 1)
    whole = bool(mask_nt.all())
    return x_nmtvc[taken_nm], None if whole else mask_nt[:, None].expand(*taken_nm.shape, -1)[taken_nm]


def _mean_over_bodies(features_ktd: Tensor, taken_nm: Tensor) -> Tensor:
    """The mean (N, T, D) over the bodies of every clip."""
    if torch.compiler.is_compiling():
        features_nmtd = (
            features_ktd.view(*taken_nm.shape, *features_ktd.shape[1:]) * taken_nm[:, :, None, None]
        )
    else:
        features_nmtd = features_ktd.new_zeros(*taken_nm.shape, *features_ktd.shape[1:])
        features_nmtd[taken_nm] = features_ktd
    features_ntd: Tensor = features_nmtd.sum(dim=1) / taken_nm.sum(dim=1)[:, None, None]
    return features_ntd
