"""Random numbers for the clips of a global batch, of which a rank is given those of its own clips."""

from collections.abc import Callable, Iterable
from typing import Self

import torch
from torch import Generator, Tensor


class Draws:
    """The random numbers of one batch, a row a clip.

    They are drawn for every one of the `clips` of the global batch, and those of the clips `mine` are given.
    So a clip meets the same numbers on whichever rank it is, and generators go on in step on all ranks.
    """

    def __init__(self, generator: Generator, clips: int, mine: slice | Tensor = slice(None)) -> None:
        self._parts = [(generator, clips, mine)]

    @classmethod
    def joined(cls, several: Iterable["Draws"]) -> Self:
        """The draws of several batches, one after another; each batch has its own numbers."""
        joined = cls.__new__(cls)
        joined._parts = [part for draws in several for part in draws._parts]
        return joined

    @property
    def mine(self) -> slice | Tensor:
        """Which of all clips are given: what indexes their rows."""
        if all(_is_all(mine, clips) for _, clips, mine in self._parts):
            return slice(None)
        places, first = [], 0
        for _, clips, mine in self._parts:
            places.append(torch.arange(first, first + clips)[mine])
            first += clips
        return torch.cat(places)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers from 0 to 1, float32 (clips, *shape)[mine]."""
        return self._draw(torch.rand, shape)

    def normal(self, *shape: int) -> Tensor:
        """Numbers of the standard normal distribution, float32 (clips, *shape)[mine]."""
        return self._draw(torch.randn, shape)

    def uniform_of_all(self, *shape: int) -> Tensor:
        """The numbers of every clip, (clips, *shape), for what depends on the whole batch."""
        return self._draw(torch.rand, shape, everyone=True)

    def _draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...], *, everyone: bool = False) -> Tensor:
        drawn = [
            draw(clips, *shape, generator=generator)[slice(None) if everyone else mine]
            for generator, clips, mine in self._parts
        ]
        return drawn[0] if len(drawn) == 1 else torch.cat(drawn)


def _is_all(mine: slice | Tensor, clips: int) -> bool:
    return isinstance(mine, slice) and mine in (slice(None), slice(0, clips))
