"""What a pretext is: views wanted, losses given, an encoder kept."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.encoders.base import Encoder

INPUT = "input"  # the view that the kept encoder sees


@dataclass(frozen=True)
class WantedView:
    """A view a pretext asks for. Views with one `draw` share crop and augmentation parameters."""

    view: ViewConfig
    draw: str


@dataclass(frozen=True)
class Teacher:
    """An earlier stage's encoder, and the view through which it sees clips."""

    encoder: Encoder
    view: ViewConfig


class Pretext(nn.Module, ABC):
    """A task without labels that trains `encoder`, the part that is kept."""

    def __init__(self, encoder: Encoder, views: Mapping[str, WantedView]) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = dict(views)

    def forward(self, views: Mapping[str, Clips]) -> dict[str, Tensor]:
        """The `loss` of a batch, and its parts to log, from the views by name."""
        clips = views[INPUT]
        return self.losses(self.encoder(clips.x, clips.lengths), views)

    @abstractmethod
    def losses(self, features_ntd: Tensor, views: Mapping[str, Clips]) -> dict[str, Tensor]:
        """The `loss` and its parts, given the encoder's features (N, T', D) of the input view."""

    def after_step(self) -> None:
        """Whatever follows an optimiser step: momentum, queues."""


class PretextConfig(Config, ABC):
    """Base of the pretexts' configs; each adds a literal `name`, by which a recipe picks it."""

    name: str
    input: ViewConfig = ViewConfig()

    @abstractmethod
    def build(self, encoder: Encoder, shape: "PoseShape", teachers: Mapping[str, Teacher]) -> Pretext:
        """The pretext around a new `encoder`; `teachers` are the earlier stages by name."""

    def teacher_names(self) -> tuple[str, ...]:
        """The earlier stages this pretext needs."""
        return ()


def refuse_own_input(part: PretextConfig, shared: ViewConfig) -> None:
    """A part of another pretext sees that one's input: an input of its own would go unheard."""
    if part.input not in (ViewConfig(), shared):
        raise ValueError(f"{part.name}: it sees the input of the pretext around it; give `input` there")


@dataclass(frozen=True)
class PoseShape:
    """V joints, C coordinates, M bodies: what a decoder must give for one stream."""

    joints: int
    coordinates: int
    bodies: int

    def size(self, view: ViewConfig) -> int:
        """The numbers in one frame of a view, V * C * M."""
        return self.joints * self.coordinates * len(view.streams) * self.bodies
