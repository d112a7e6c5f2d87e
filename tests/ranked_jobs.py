"""What tests let ranks do: functions that a process which stands by can import."""

import importlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import ranked
import tiny
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ssl_skeleton import ranks
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.store import open_store
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig
from ssl_skeleton.encoders.base import EncoderConfig
from ssl_skeleton.encoders.blocks.norm import FrameNorm, SyncedBatchNorm
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Features, Source, calibrate_norms, encoding, split_features
from ssl_skeleton.training.batches import Batch, draw_views
from ssl_skeleton.training.config import TrainingConfig
from ssl_skeleton.training.schedule import SGDConfig
from ssl_skeleton.training.signals import Asked
from ssl_skeleton.training.step import Step

FEATURED = Split(
    "some",
    train=np.array([7, 2, 26, 0, 9, 8, 11]),
    test=np.array([3, 25, 1]),
    validation=np.array([5]),
)


def places(count: int) -> tuple[int, int, slice]:
    return ranks.rank(), ranks.world_size(), ranks.share(count)


def gathered(parts: list[Tensor]) -> Tensor:
    return ranks.gather_rows(parts[ranks.rank()])


def normalised_rows(
    norm: SyncedBatchNorm, parts: list[Tensor], slopes: list[Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What differs between ranks, and what should not, when a norm in training meets its rows (R, C)."""
    rows_rc = parts[ranks.rank()].requires_grad_()
    return _normalised(norm, rows_rc, norm.train()(rows_rc), slopes[ranks.rank()])


def normalised_frames(
    norm: FrameNorm, parts: list[tuple[Tensor, Tensor]], slopes: list[Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same of features (K, T, V, C) with their valid frames."""
    x_ktvc, mask_kt = parts[ranks.rank()]
    x_ktvc.requires_grad_()
    return _normalised(norm, x_ktvc, norm.train()(x_ktvc, mask_kt), slopes[ranks.rank()])


def normalised_frames_compiled(
    norm: FrameNorm, parts: list[tuple[Tensor, Tensor]], slopes: list[Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same where the norm is compiled."""
    x_ktvc, mask_kt = parts[ranks.rank()]
    x_ktvc.requires_grad_()
    compiled = torch.compile(norm.train(), backend="aot_eager")
    return _normalised(norm, x_ktvc, compiled(x_ktvc, mask_kt), slopes[ranks.rank()])


def _normalised(
    norm: SyncedBatchNorm, x: Tensor, normal: Tensor, slopes: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    (normal * slopes).sum().backward()
    weights = {name: parameter.grad for name, parameter in norm.named_parameters()}
    return {"normal": normal.detach(), "slope": x.grad} | weights, dict(norm.named_buffers())


def trained(store: Path, pretext: str, encoder: EncoderConfig, sizes: list[int], accumulate: int = 1) -> Any:
    """A step on a batch of each size: values and gradients of every step, and the state in the end.

    All is in float64, on clips of their own lengths of which some lack a body.
    """
    with mock.patch.object(tiny, "ENCODER", encoder):
        task = tiny.pretext_task(pretext, store, bodies=2, frames=None)
    task.pretext.double()
    step = Step(task, TrainingConfig(batch=max(sizes), accumulate=accumulate, optimiser=SGDConfig(lr=0.01)))
    told, order = [], torch.randperm(tiny.CLIPS, generator=torch.Generator().manual_seed(0))
    for number, index in enumerate(order[: sum(sizes)].split(sizes)):
        with ranks.alone():
            views = draw_views(task, index, 0, number)
        rows = ranks.share(len(index))
        views = {name: _some_absent(clips).rows(rows) for name, clips in views.items()}
        values = step(Batch(number, index, views), 0, Asked())
        told.append((values, {name: weight.grad for name, weight in task.pretext.named_parameters()}))
    return told, task.pretext.state_dict()


def _some_absent(clips: Clips) -> Clips:
    """In float64, some without their first body, some without their second."""
    x_nctvm = clips.x.double()
    x_nctvm[clips.index % 3 == 1, ..., 1] = 0
    x_nctvm[clips.index % 3 == 2, ..., 0] = 0
    return clips.with_x(x_nctvm)


def summed(parts: list[Tensor], slopes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The total of the ranks' tensors, and its gradient where each rank has a slope of its own."""
    x = parts[ranks.rank()].requires_grad_()
    total = ranks.total(x)
    (total * slopes[ranks.rank()]).sum().backward()
    return total.detach(), x.grad


def alone_and_together() -> list[int]:
    """How many ranks there are: joined, alone, and joined again; and what all of them say to each other."""
    counts = [ranks.world_size()]
    with ranks.alone():
        counts += [
            ranks.world_size(),
            int(ranks.total(torch.ones(()))),
            len(ranks.gather_rows(torch.ones(2))),
        ]
    return [*counts, ranks.world_size(), int(ranks.total(torch.ones(())))]


def main_alone(fault: str) -> str | None:
    """What the main rank does alone."""

    def work() -> str:
        if fault:
            raise UserError(fault)
        return f"done by rank {ranks.rank()} of {ranks.world_size()}"

    try:
        return ranks.on_main(work)
    except UserError as error:
        return f"error: {error}"


def ending(lines: list[str]) -> tuple[int, str, str]:
    """A command that says where it is and ends, each rank with an error of its own, or well."""

    def main(arguments: Sequence[str]) -> None:
        print(f"rank {ranks.rank()} of {ranks.world_size()}")
        if lines[ranks.rank()]:
            raise UserError(lines[ranks.rank()])

    return ranked.command(main)


def left_behind(where: str) -> tuple[int, str, str]:
    """A command during which rank 1 dies."""
    weight = torch.nn.Linear(2, 2)

    def main(arguments: Sequence[str]) -> None:
        with ranks.joined(torch.device("cpu")):
            model = DistributedDataParallel(weight)
            model(torch.ones(1, 2)).sum().backward()
            loss = model(torch.ones(1, 2)).sum()
            if ranks.rank() == 1:
                os._exit(1)
            if where == "backward":
                loss.backward()
            else:
                ranks.total(torch.ones(()))

    return ranked.command(main)


def features(store: Path, frames: int | None, batch: int) -> Features:
    """The features of an encoder with random weights."""
    packed = PackedClips(open_store(store), bodies=1)
    torch.manual_seed(0)
    source = Source(tiny.ENCODER.build(packed.layout, 3, 1), ViewConfig(), "mean_max")
    calibrate_norms(packed, FEATURED, SamplingConfig(frames=frames), source, batch)
    encode = encoding(packed, SamplingConfig(frames=frames), [source], batch)
    return split_features(packed, FEATURED, encode)


def command(verb: str, *arguments: str) -> tuple[int, str, str]:
    """Run one of the package's commands."""
    return ranked.command(importlib.import_module(f"ssl_skeleton.{verb}").main, *arguments)


def command_in_which_rank_1_dies(steps: int, verb: str, *arguments: str) -> tuple[int, str, str]:
    """The same, until rank 1 has made so many steps of training."""
    numbers, make = itertools.count(), Step.__call__

    def die_or_make(step: Step, *given: Any) -> dict[str, float]:
        if next(numbers) == steps and ranks.rank() == 1:
            os._exit(1)
        return make(step, *given)

    with mock.patch.object(Step, "__call__", die_or_make):
        return command(verb, *arguments)
