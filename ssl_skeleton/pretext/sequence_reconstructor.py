"""SER, the sequence reconstructor of CRRL (arXiv 2111.11051, Section III-B)."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.augment import reverse
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.pooling import valid_steps
from ssl_skeleton.encoders.recurrence import recur
from ssl_skeleton.pretext.base import INPUT, PoseShape, Pretext, PretextConfig, Teacher, WantedView
from ssl_skeleton.pretext.losses import reconstruction


class SequenceReconstructorConfig(PretextConfig):
    """The decoder: `hidden` null gives it the pose's size, as in CRRL, and no layer behind it.

    Its states lie in -1..1 then, so coordinates beyond cannot be reached; a number adds a linear layer.
    """

    name: Literal["sequence_reconstructor"] = "sequence_reconstructor"
    layers: int = Field(default=2, ge=1)
    hidden: int | None = Field(default=None, ge=1)

    def build(
        self, encoder: Encoder, shape: PoseShape, teachers: Mapping[str, Teacher]
    ) -> "SequenceReconstructor":
        """SER around `encoder`."""
        return SequenceReconstructor(self, encoder, shape.size(self.input))


class SequenceReconstructor(Pretext):
    """One decoder rebuilds the clip from the encoder's first step, and the reversed clip from its last."""

    def __init__(self, config: SequenceReconstructorConfig, encoder: Encoder, pose: int) -> None:
        super().__init__(encoder, {INPUT: WantedView(config.input, draw=INPUT)})
        hidden = config.hidden or pose
        self.decoder = nn.GRU(encoder.dim, hidden, config.layers, batch_first=True)
        self.readout = nn.Linear(hidden, pose) if config.hidden else nn.Identity()

    def losses(self, features_ntd: Tensor, views: Mapping[str, Clips]) -> dict[str, Tensor]:
        """Both reconstruction errors, and their sum as `loss`."""
        clips = views[INPUT]
        frames = clips.x.shape[2]
        last_n = valid_steps(clips.lengths, frames, features_ntd.shape[1]) - 1
        last_nd = features_ntd[torch.arange(len(clips), device=last_n.device), last_n]
        states_nd, lengths = torch.cat([features_ntd[:, 0], last_nd]), clips.lengths.repeat(2)
        estimate_ntp = self.decode(states_nd, lengths, frames)
        forward_ntp, backward_ntp = estimate_ntp.chunk(2)
        parts = {
            "reconstruct": reconstruction(forward_ntp, poses(clips.x), clips.lengths),
            "reconstruct_reversed": reconstruction(
                backward_ntp, poses(reverse(clips.x, clips.lengths)), clips.lengths
            ),
        }
        return {"loss": parts["reconstruct"] + parts["reconstruct_reversed"], **parts}

    def decode(self, state_nd: Tensor, lengths: Tensor, frames: int) -> Tensor:
        """Poses (N, T, V * C * M) from one state (N, D), given to the decoder again at every valid frame."""
        estimate_ntp: Tensor = self.readout(recur(self.decoder, state_nd[:, None], lengths, frames))
        return estimate_ntp


def poses(x_nctvm: Tensor) -> Tensor:
    """Clips (N, C, T, V, M) as one vector a frame, (N, T, V * C * M)."""
    return x_nctvm.permute(0, 2, 3, 1, 4).flatten(2)
