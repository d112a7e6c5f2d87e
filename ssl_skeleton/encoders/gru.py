"""The recurrent encoder of CRRL: a bidirectional GRU over the frames' coordinates."""

import itertools
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.base import Encoder, EncoderConfig
from ssl_skeleton.encoders.recurrence import scanned
from ssl_skeleton.encoders.tracing import exporting
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
        self.norm = nn.BatchNorm1d(inputs) if config.input_norm == "batch" else None
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
        frames = x_nctvm.shape[2]
        x_nti = x_nctvm.permute(0, 2, 3, 1, 4).flatten(2)
        if exporting() and not self.training:  # torch.compile leaves a GRU out of its graphs by itself
            return self._exported(x_nti, frame_mask(lengths, frames))
        if bool((lengths == frames).all()):
            features_ntd: Tensor = self.gru(self._normalised(x_nti.flatten(0, 1)).view_as(x_nti))[0]
            return features_ntd
        # Over the valid frames alone: padding must not shift the statistics.
        valid_nt = frame_mask(lengths, frames)
        x_nti = torch.zeros_like(x_nti).masked_scatter(valid_nt[..., None], self._normalised(x_nti[valid_nt]))
        packed = pack_padded_sequence(x_nti, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=frames)[0]

    def _exported(self, x_nti: Tensor, valid_nt: Tensor) -> Tensor:
        """The features in eval mode, without asking which frames are valid."""
        x_nti = torch.where(valid_nt[..., None], self._normalised(x_nti.flatten(0, 1)).view_as(x_nti), 0)
        return torch.where(valid_nt[..., None], scanned(self.gru, x_nti, valid_nt), 0)

    def layers(self) -> list[list[nn.Parameter]]:
        """The input norm, where there is one, and the layers of the GRU."""
        weights, directions = self.gru.all_weights, 2 if self.gru.bidirectional else 1
        layers = [
            [*itertools.chain(*weights[first : first + directions])]
            for first in range(0, len(weights), directions)
        ]
        return layers if self.norm is None else [[*self.norm.parameters()], *layers]

    def _normalised(self, frames_ki: Tensor) -> Tensor:
        """BatchNorm, where there is one, of K frames."""
        norm = self.norm
        if norm is None:
            return frames_ki
        if norm.training and len(frames_ki) == 1:  # which has no variance: the running statistics stand in
            return functional.batch_norm(
                frames_ki, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        normal_ki: Tensor = norm(frames_ki)
        return normal_ki
