"""A task: what one stage trains on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.views.view import SamplingConfig
from ssl_skeleton.pretext.base import Pretext


def index_numbers(index: Tensor) -> list[str]:
    """The numbers of clips (N,), for want of names."""
    return [str(clip) for clip in index.tolist()]


@dataclass(frozen=True)
class Task:
    """What one stage trains on: the clips `parts`, (N,) for each store, of `packed`, seen by `pretext`.

    `balanced` draws as many clips of each part in an epoch, else every clip is drawn once. `names` gives the
    names of clips of `packed`, for what is told of them.
    """

    name: str
    pretext: Pretext
    packed: PackedClips
    parts: Sequence[Tensor]
    sampling: SamplingConfig
    seed: int
    balanced: bool = False
    names: Callable[[Tensor], list[str]] = index_numbers

    @property
    def clips(self) -> int:
        """How many clips an epoch has."""
        return sum(map(len, self.parts))
