"""The recurrent encoder of CRRL: a bidirectional GRU over the frames' coordinates."""

import itertools
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.base import Encoder, EncoderConfig
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.recurrence import recur
from ssl_skeleton.skeleton.layout import Layout


class GRUConfig(EncoderConfig):
    """Sizes as in CRRL (arXiv 2111.11051); `input_norm: batch` puts BatchNorm before the first layer."""

    name: Literal["gru"] = "gru"
    hidden: int = Field(default=256, ge=1)
    layers: int = Field(default=2, ge=1)
    bidirectional: bool = True
    dropout: float = Field(default=0.2, ge=0, lt=1)
    input_norm: Literal["none", "batch"] = "none"

    def build(self, layout: Layout, channels: int, bodies: int) -> "GRU":
        """A GRU that sees V * C * M numbers a frame."""
        return GRU(self, len(layout.joints) * channels * bodies)


class GRU(Encoder):
    """GRU over frames, each the V * C * M coordinates of all bodies; T' = T, D = hidden * directions."""

    def __init__(self, config: GRUConfig, inputs: int) -> None:
        super().__init__()
        self.dim = config.hidden * (2 if config.bidirectional else 1)
        self.norm = FrameNorm(inputs) if config.input_norm == "batch" else None
        self.gru = nn.GRU(
            inputs,
            config.hidden,
            config.layers,
            batch_first=True,
            dropout=config.dropout if config.layers > 1 else 0.0,
            bidirectional=config.bidirectional,
        )

    def forward(self, x_nctvm: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T, D); zero past a clip's length."""
        x_nti = x_nctvm.permute(0, 2, 3, 1, 4).flatten(2)
        if self.norm is not None:
            x_nti = self.norm(x_nti[:, :, None], _mask(lengths, x_nti.shape[1]))[:, :, 0]
        return recur(self.gru, x_nti, lengths)

    def layers(self) -> list[list[nn.Parameter]]:
        """The input norm, where there is one, and the layers of the GRU."""
        weights, directions = self.gru.all_weights, 2 if self.gru.bidirectional else 1
        layers = [
            [*itertools.chain(*weights[first : first + directions])]
            for first in range(0, len(weights), directions)
        ]
        return layers if self.norm is None else [[*self.norm.parameters()], *layers]


def _mask(lengths: Tensor, frames: int) -> Tensor | None:
    """The valid frames (N, T); None when all are, which a graph cannot ask."""
    if not torch.compiler.is_compiling() and bool((lengths == frames).all()):
        return None
    return frame_mask(lengths, frames)
