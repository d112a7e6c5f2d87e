"""Training one stage: batches of views in, losses down, checkpoints out."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_skeleton import ranks
from ssl_skeleton.errors import Stopped, UserError
from ssl_skeleton.pretext.base import Pretext
from ssl_skeleton.training.batches import Batch, batches
from ssl_skeleton.training.checkpoint import Checkpoint, Checkpoints
from ssl_skeleton.training.config import TrainingConfig
from ssl_skeleton.training.diagnosis import blame
from ssl_skeleton.training.log import RunLog
from ssl_skeleton.training.position import Pace, Position
from ssl_skeleton.training.signals import Asked, noted
from ssl_skeleton.training.step import NotFinite, Step
from ssl_skeleton.training.task import Task

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclass(frozen=True)
class Standing:
    """How a stage stands: `step` of `steps` are done in `epoch` (from 1) of `epochs`.

    `values` are means over the clips of the epoch so far; after its last step they are those of the log.
    The speed and `seconds_left`, which is to the end of the stage, are those of the last steps.
    """

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    values: dict[str, float]
    clips_per_second: float
    seconds_left: float


Report = Callable[[Standing], None]
# Given an epoch (from 1), the pretext and a writer; what it gives joins the epoch's values in the log.
Observer = Callable[[int, Pretext, "SummaryWriter"], dict[str, float]]


def train(
    task: Task,
    config: TrainingConfig,
    folder: Path,
    *,
    report: Report = lambda standing: None,
    observers: Sequence[Observer] = (),
) -> None:
    """Train a stage to its last epoch, from its start or from its checkpoint in the run folder.

    `report` is called after every step, `observers` after every epoch before it is logged; both by the main
    rank alone, which writes all files. Raises Stopped after a signal, when the state is saved, and UserError
    on a loss that is not finite.
    """
    training = _Training(task, config, folder, report, observers)
    with noted() as training.asked, training.log or nullcontext():
        while training.at.epoch < config.epochs:
            for batch in batches(task, config.batch, training.at.epoch, training.at.step):
                training.make_step(batch)
            training.end_epoch()


class _Training:
    """A stage on its way. Every rank has one, and they do the same at the same time."""

    asked: Asked

    def __init__(
        self,
        task: Task,
        config: TrainingConfig,
        folder: Path,
        report: Report,
        observers: Sequence[Observer],
    ) -> None:
        self.task, self.config, self.observers = task, config, observers
        self.report = report if ranks.is_main() else lambda standing: None
        self.steps = math.ceil(task.clips / config.batch)  # of an epoch
        self.step = Step(task, config)
        self.checkpoints = Checkpoints(folder, task.name, config.keep, config.keep_best)
        self.at = self._last_position()
        self.log = ranks.on_main(lambda: RunLog(folder, task.name, self.at.epoch))
        self.pace = Pace((config.epochs - self.at.epoch) * task.clips - self._clips_done)

    def make_step(self, batch: Batch) -> None:
        """Make a step of the epoch; save the state when it is time, or when a signal asks to stop."""
        try:
            values = self.step(batch, self.at.epoch, self.asked)
        except NotFinite as error:
            raise self._not_finite(batch, error) from None
        self.at.add(values, len(batch.index))
        self.pace.add(len(batch.index))
        every, steps = self.config.checkpoint_steps, self.at.epoch * self.steps + self.at.step
        within = self.at.step < self.steps
        if self.asked.agreed is not None or (every is not None and within and steps % every == 0):
            self._save()
        if within:
            self.report(self._standing(self._means()))
        self._stop_if_asked()

    def end_epoch(self) -> None:
        """Observe and log the epoch; save the state when it is time, or when a signal asks to stop."""
        values = self._means() | {
            "lr": self.config.rate(self.at.epoch + (self.steps - 1) * self.config.batch / self.task.clips),
            "seconds": self.pace.seconds,
            "clips_per_second": self.pace.clips_per_second,
        }
        ranks.on_main(lambda: self._observe_and_log(values))
        standing = self._standing(values)
        self.at = Position(self.at.epoch + 1)
        self.asked.ask(self.step.device)
        due = self.at.epoch % self.config.checkpoint_every == 0 or self.at.epoch == self.config.epochs
        if due or self.asked.agreed is not None:
            self._save(values["loss"])
        self.report(standing)
        self._stop_if_asked()
        self.pace.begin_epoch()

    def _last_position(self) -> Position:
        """Load the last checkpoint, where there is one."""
        found = self.checkpoints.load()
        if found is None:
            return Position()
        if found.step > self.steps:
            raise UserError(
                f"{self.checkpoints.path}: stands at step {found.step} of an epoch of {self.steps}; "
                "check the recipe and its store, or train again"
            )
        self.step.load(found, self.checkpoints.path)
        return Position(found.epoch, found.step, found.totals)

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(self.task.name, **vars(self.at), **self.step.state())

    def _save(self, epoch_loss: float | None = None) -> None:
        ranks.on_main(lambda: self.checkpoints.save(self._checkpoint(), epoch_loss))

    def _stop_if_asked(self) -> None:
        if self.asked.agreed is not None:
            ended = self.at.epoch == self.config.epochs
            place = f"the end of stage {self.task.name}" if ended else self._place(self.at.step)
            raise Stopped(self.asked.agreed, f"{place}; the state is saved")

    def _observe_and_log(self, values: dict[str, float]) -> None:
        """Log an epoch's values, to which observers add; on the main rank, which alone has a log."""
        if self.log is None:
            return
        epoch = self.at.epoch + 1
        for observe in self.observers:
            values |= observe(epoch, self.task.pretext, self.log.board)
        self.task.pretext.train()
        self.log.epoch(epoch, values)

    def _standing(self, values: dict[str, float]) -> Standing:
        place = (self.at.epoch + 1, self.config.epochs, self.at.step, self.steps)
        return Standing(self.task.name, *place, values, self.pace.recent, self.pace.seconds_left)

    @property
    def _clips_done(self) -> int:
        """Of the epoch at hand."""
        return min(self.at.step * self.config.batch, self.task.clips)

    def _means(self) -> dict[str, float]:
        """The mean values of the clips that are done."""
        return {name: total / self._clips_done for name, total in self.at.totals.items()}

    def _place(self, step: int) -> str:
        return f"stage {self.task.name}, epoch {self.at.epoch + 1}, step {step}"

    def _not_finite(self, batch: Batch, error: NotFinite) -> UserError:
        """What names the step and its clips; the state is kept to look at."""
        clips = blame(self.task, batch)
        ranks.on_main(lambda: self.checkpoints.save_aside(self._checkpoint(), batch.index))
        place = self._place(batch.step + 1)
        mend = "lower the learning rate or clip gradients, and go on with --resume-anyway"
        return UserError(f"{place}: {error}; {clips}; the state is in {self.checkpoints.aside}; {mend}")
