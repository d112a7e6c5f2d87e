"""What tests of training let ranks do: functions that a process which stands by can import."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from unittest import mock

import torch
from ranked import command

from ssl_skeleton import pretrain as verb
from ssl_skeleton import ranks
from ssl_skeleton.errors import UserError
from ssl_skeleton.training.batches import Batch, batches
from ssl_skeleton.training.checkpoint import Checkpoints
from ssl_skeleton.training.task import Task

Answer = tuple[int, str, str]


def pretrain(words: Sequence[str]) -> Answer:
    """The command, on a rank."""
    return command(verb.main, *words)


def pretrain_poisoned(words: Sequence[str], step: int, places: Sequence[int]) -> Answer:
    """The same; in that step of the last stage the clips at these places of the batch are not numbers."""

    def poisoned(task: Task, *given: int) -> Iterator[Batch]:
        for batch in batches(task, *given):
            here = (task.name, batch.step + 1) == ("main", step)
            yield _poisoned(batch, places) if here else batch

    with mock.patch("ssl_skeleton.training.loop.batches", poisoned):
        return command(verb.main, *words)


def _poisoned(batch: Batch, places: Sequence[int]) -> Batch:
    mine = range(len(batch.index))[ranks.share(len(batch.index))]
    x_nctvm = batch.views["input"].x.clone()
    for place in set(places) & set(mine):
        x_nctvm[place - mine.start] = torch.nan
    return replace(batch, views=batch.views | {"input": batch.views["input"].with_x(x_nctvm)})


def pretrain_on_a_full_disk(words: Sequence[str], time: int) -> Answer:
    """The same; a checkpoint cannot be written when it is that many-th time."""
    save, times = Checkpoints.save, itertools.count(1)

    def full(self: Checkpoints, *given: object) -> None:
        if next(times) == time:
            raise UserError("the disk is full")
        save(self, *given)

    with mock.patch.object(Checkpoints, "save", full):
        return command(verb.main, *words)
