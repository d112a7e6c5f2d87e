"""What may be inserted into the blocks of any graph encoder."""

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from ssl_skeleton.config import Config

Place = Literal["start", "series", "parallel", "end"]


class InsertConfig(Config, ABC):
    """Base of the inserts' configs; each adds a literal `name`, by which a recipe picks it.

    place   where in a block: `start` changes what comes in, for the shortcut too; `series` changes what goes
            into the temporal part; `parallel` stands beside the temporal part and is added to what that
            gives; `end` changes what goes out
    blocks  into which blocks, counted from 0; null is all of them
    """

    name: str
    place: Place = "series"
    blocks: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None

    @abstractmethod
    def build(self, channels: int) -> "Insert":
        """The module for features of C = `channels`. Raises UserError where they do not fit the options."""


class SqueezingConfig(InsertConfig, ABC):
    """Base of the configs of inserts that work on fewer channels, fewer by a factor of `reduction`."""

    reduction: int = Field(default=16, ge=1)

    def squeezed(self, channels: int) -> int:
        """The channels, one at least, to which C = `channels` are squeezed."""
        return max(1, channels // self.reduction)


class Insert(nn.Module, ABC):
    """A module inserted into a block."""

    @abstractmethod
    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T, V, C), as many as came in, with the valid frames `mask_kt` (K, T); None: all.

        What comes in is zero in other frames, and so is what goes out. Bodies do not meet.
        """
