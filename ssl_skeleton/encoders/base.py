"""What an encoder is."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from ssl_skeleton.config import Config
from ssl_skeleton.skeleton.layout import Layout


class Encoder(nn.Module, ABC):
    """Features over time from clips. `dim` is D, the size of one step's feature."""

    dim: int

    @abstractmethod
    def forward(self, x_nctvm: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T', D) of clips (N, C, T, V, M) with `lengths` (N,) valid frames.

        A clip's features do not depend on its padding or, in eval mode, on the other clips. Its first
        ceil(length * T' / T) steps are valid.
        """

    @abstractmethod
    def layers(self) -> list[list[nn.Parameter]]:
        """The parameters of its layers, those next to the input first; each parameter is in one of them."""


class EncoderConfig(Config, ABC):
    """Base of the encoders' configs; each adds a literal `name`, by which a recipe picks it."""

    name: str

    @abstractmethod
    def build(self, layout: Layout, channels: int, bodies: int) -> Encoder:
        """A new encoder for `channels` C and `bodies` M on `layout`, with random weights."""
