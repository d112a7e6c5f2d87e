"""Training one stage: batches of views in, losses down, a checkpoint out."""

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch
from pydantic import Field
from torch import Generator, Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.views.view import SamplingConfig, make_view
from ssl_skeleton.errors import Stopped, UserError
from ssl_skeleton.pretext.base import Pretext
from ssl_skeleton.training.checkpoint import Checkpoint, load_state, save_checkpoint
from ssl_skeleton.training.log import RunLog
from ssl_skeleton.training.schedule import Optimiser, Schedule, SGDConfig, StepConfig
from ssl_skeleton.training.seeds import derive_seed, generator


class TrainingConfig(Config):
    """How long and how a stage trains; the defaults are CRRL's."""

    epochs: int = Field(default=60, ge=1)
    batch: int = Field(default=32, ge=1)
    optimiser: Optimiser = SGDConfig()
    schedule: Schedule = StepConfig(milestones=(18, 50), factor=0.5)
    clip_gradient: float | None = Field(default=None, gt=0)  # the largest norm of all gradients together
    checkpoint_every: int = Field(default=1, ge=1)  # epochs


@dataclass(frozen=True)
class Task:
    """What one stage trains on: the clips `parts`, (N,) for each store, of `packed`, seen by `pretext`.

    `balanced` draws as many clips of each part in an epoch, else every clip is drawn once.
    """

    name: str
    pretext: Pretext
    packed: PackedClips
    parts: Sequence[Tensor]
    sampling: SamplingConfig
    seed: int
    balanced: bool = False

    @property
    def clips(self) -> int:
        """How many clips an epoch has."""
        return sum(map(len, self.parts))


@dataclass
class _Position:
    """Where training stands: `step` batches of `epoch` (from 0) are done, with these sums of values."""

    epoch: int = 0
    step: int = 0
    totals: dict[str, float] = field(default_factory=dict)

    def place(self, task: Task) -> str:
        return f"stage {task.name}, epoch {self.epoch + 1}, step {self.step}"


Watcher = Callable[[int, dict[str, float]], None]
Progress = Callable[[Iterable[Tensor], int, str], Iterable[Tensor]]


def train(
    task: Task,
    config: TrainingConfig,
    folder: Path,
    resume: Checkpoint | None = None,
    *,
    watch: Watcher = lambda epoch, values: None,
    progress: Progress = lambda batches, total, what: batches,
) -> None:
    """Train a stage to its last epoch, or on to it from `resume`.

    After every `checkpoint_every` epochs, and when a signal asks to stop, the state goes to
    `folder/checkpoints/<stage>.pt`. `watch` is called after every epoch with its number (from 1) and mean
    values; `progress` wraps the batches of an epoch, with their number and a title. Raises Stopped after a
    signal, UserError on a loss that is not finite.
    """
    task.pretext.to(task.packed.device).train()
    optimiser = config.optimiser.build(p for p in task.pretext.parameters() if p.requires_grad)
    path = checkpoint_path(folder, task.name)
    at = _Position()
    if resume is not None:
        load_state(task.pretext, resume.pretext, path)
        try:
            optimiser.load_state_dict(resume.optimiser)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: of another optimiser than the recipe's ({error})") from None
        at = _Position(resume.epoch, resume.step, dict(resume.totals))

    def save(path: Path) -> None:
        state = (task.pretext.state_dict(), optimiser.state_dict())
        save_checkpoint(path, Checkpoint(task.name, at.epoch, at.step, *state, at.totals))

    def stop_if_asked() -> None:
        if asked:
            save(path)
            raise Stopped(asked[0], at.place(task))

    with RunLog(folder, task.name, at.epoch) as log, _signals() as asked:
        while at.epoch < config.epochs:
            began, skipped = time.perf_counter(), at.step
            batches = _batches(task, config, at.epoch)[skipped:]
            for index in progress(batches, len(batches), f"{task.name} {at.epoch + 1}/{config.epochs}"):
                stop_if_asked()
                try:
                    _train_step(task, config, optimiser, at, index)
                except FloatingPointError as error:
                    kept = path.with_suffix(".not-finite.pt")
                    save(kept)
                    raise UserError(f"{at.place(task)}: {error}; the state is in {kept}") from None
            values = {name: total / task.clips for name, total in at.totals.items()}
            values["lr"] = optimiser.param_groups[0]["lr"]
            values["seconds"] = time.perf_counter() - began
            values["clips_per_second"] = (task.clips - skipped * config.batch) / values["seconds"]
            at = _Position(at.epoch + 1)
            log.epoch(at.epoch, values)
            if at.epoch % config.checkpoint_every == 0 or at.epoch == config.epochs:
                save(path)
            watch(at.epoch, values)
        stop_if_asked()


def checkpoint_path(folder: Path, stage: str) -> Path:
    """Where a stage's checkpoint lies in a run folder."""
    return folder / "checkpoints" / f"{stage}.pt"


def draw_views(task: Task, index: Tensor, epoch: int, step: int) -> dict[str, Clips]:
    """The views of one batch; those that name the same draw get the same random numbers."""
    return {
        name: make_view(
            task.packed,
            index,
            task.sampling,
            wanted.view,
            generator(task.seed, task.name, epoch, step, wanted.draw),
        )
        for name, wanted in task.pretext.views.items()
    }


def _batches(task: Task, config: TrainingConfig, epoch: int) -> list[Tensor]:
    """The epoch's batches, in an order of its own; the last may be smaller."""
    order = epoch_order(task.parts, generator(task.seed, task.name, epoch, "order"), balanced=task.balanced)
    return list(torch.split(order, config.batch))


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


def _train_step(
    task: Task, config: TrainingConfig, optimiser: torch.optim.Optimizer, at: _Position, index: Tensor
) -> None:
    """One optimiser step; `at` moves on by it."""
    progress = at.epoch + at.step * config.batch / task.clips
    for group in optimiser.param_groups:
        group["lr"] = config.optimiser.lr * config.schedule.rate(progress, config.epochs)
    torch.manual_seed(derive_seed(task.seed, task.name, at.epoch, at.step, "dropout"))
    parts = task.pretext(draw_views(task, index, at.epoch, at.step))
    logged = torch.stack([part.detach() for part in parts.values()]).tolist()  # one transfer from a GPU
    values = dict(zip(parts, logged, strict=True))
    if not all(map(math.isfinite, values.values())):
        found = ", ".join(f"{name} {value:g}" for name, value in values.items())
        raise FloatingPointError(f"a loss is not finite ({found}); lower the learning rate or clip gradients")
    optimiser.zero_grad(set_to_none=True)
    parts["loss"].backward()
    if config.clip_gradient is not None:
        torch.nn.utils.clip_grad_norm_(task.pretext.parameters(), config.clip_gradient)
    optimiser.step()
    task.pretext.after_step()
    at.step += 1
    for name, value in values.items():
        at.totals[name] = at.totals.get(name, 0.0) + value * len(index)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that the loop can stop between two steps."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
