"""The batches of an epoch: which clips each step sees, in which views."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Generator, Tensor

from ssl_skeleton import ranks
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.augment import AugmentConfig
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.data.views.view import ViewConfig, make_views
from ssl_skeleton.pretext.base import Pretext
from ssl_skeleton.training.seeds import generator
from ssl_skeleton.training.task import Task

_AHEAD = 1 << 19  # coordinates of a view that are made at once: 2 MiB, which a cache still holds


@dataclass(frozen=True)
class Batch:
    """One step: the clips `index` (N,) of the global batch, and the views of this rank's clips of them."""

    step: int
    index: Tensor
    views: dict[str, Clips]


def batches(task: Task, batch_size: int, epoch: int, first_step: int = 0) -> Iterator[Batch]:
    """The batches of an epoch (from 0), in an order of its own, from a step on; the last may be smaller.

    The views of several steps are made at once, since many small steps would take much longer. Which ones
    depends on their numbers alone, so that going on at any step gives the same views to the bit.
    """
    order = epoch_order(task.parts, generator(task.seed, task.name, epoch, "order"), balanced=task.balanced)
    every = torch.split(order, batch_size)
    ahead = _steps_ahead(task, batch_size)
    for first in range(first_step // ahead * ahead, len(every), ahead):
        some = every[first : first + ahead]
        for step, index, views in zip(
            count(first), some, _draw_views(task, some, epoch, first), strict=False
        ):
            if step >= first_step:
                yield Batch(step, index, views)


def draw_views(task: Task, index: Tensor, epoch: int, step: int) -> dict[str, Clips]:
    """The views of one batch; those that name the same draw get the same random numbers."""
    return _draw_views(task, [index], epoch, step)[0]


def _draw_views(task: Task, some: Sequence[Tensor], epoch: int, first: int) -> list[dict[str, Clips]]:
    """The views of the batches of some steps, one after another."""
    found: list[dict[str, Clips]] = [{} for _ in some]
    shares = [ranks.share(len(index)) for index in some]
    sizes = [share.stop - share.start for share in shares]
    for (draw, _), wanted in _by_draw(task.pretext).items():
        draws = Draws.joined(
            Draws(generator(task.seed, task.name, epoch, step, draw), len(index), mine)
            for step, index, mine in zip(count(first), some, shares, strict=False)
        )
        made = make_views(task.packed, torch.cat(list(some)), task.sampling, list(wanted.values()), draws)
        for name, clips in zip(wanted, made, strict=True):
            for views, part in zip(found, clips.split(sizes), strict=True):
                views[name] = part
    return found


def _steps_ahead(task: Task, batch_size: int) -> int:
    """How many steps have their views made at once; one where each is as long as its own longest clip."""
    if task.sampling.frames is None:
        return 1
    packed = task.packed
    clip = task.sampling.frames * packed.bodies * len(packed.layout.joints) * packed.coordinates
    return max(1, _AHEAD // (batch_size * clip // ranks.world_size() + 1))


def _by_draw(pretext: Pretext) -> dict[tuple[str, AugmentConfig], dict[str, ViewConfig]]:
    """The wanted views, those together that differ in their streams alone."""
    groups: dict[tuple[str, AugmentConfig], dict[str, ViewConfig]] = {}
    for name, wanted in pretext.views.items():
        groups.setdefault((wanted.draw, wanted.view.augment), {})[name] = wanted.view
    return groups


def epoch_order(parts: Sequence[Tensor], generator: Generator, *, balanced: bool) -> Tensor:
    """The clips (N,) of an epoch in a random order, as many as all `parts` have together.

    `balanced` draws equally many of each part, and of one part no clip more than once more than another. Else
    every clip is drawn once.
    """
    total, chosen = sum(map(len, parts)), list(parts)
    for number, part in enumerate(parts if balanced else ()):
        count = total // len(parts) + (number < total % len(parts))
        rounds = [torch.randperm(len(part), generator=generator) for _ in range(-(-count // len(part)))]
        chosen[number] = part[torch.cat(rounds)[:count]] if rounds else part[:0]
    return torch.cat(chosen)[torch.randperm(total, generator=generator)]
