"""The three pretexts of CRRL in both forms: the package's own training, and the usual one."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from usual import UsualTraining, usual_form, usual_views
from usual_clips import UsualClips
from walks import clips_of

from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.pretext.base import PoseShape, Pretext, Teacher
from ssl_skeleton.recipe import Recipe, StageConfig, load_recipe
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.batches import Batch, batches
from ssl_skeleton.training.config import TrainingConfig
from ssl_skeleton.training.signals import Asked
from ssl_skeleton.training.step import Step
from ssl_skeleton.training.task import Task

RECIPE = Path(__file__).with_name("crrl.yaml")
USUAL, OWN = "usual", "usual, own"
FORMS = (USUAL, OWN, "ours fp32", "ours bf16")
STAGES = {"ser": 2, "cml": 0, "inf": 1}  # of the recipe


class OurTraining:
    """Training as `pretrain` does it; a call is a step, and gives its loss. `clips` counts what it saw."""

    def __init__(self, task: Task, config: TrainingConfig) -> None:
        self.task, self.config, self.step, self.clips = task, config, Step(task, config), 0
        self._asked, self._batches = Asked(), self._forever()

    def __call__(self) -> float:
        """Draw a batch and learn from it."""
        return self.learn(*self.draw())

    def draw(self) -> tuple[int, Batch]:
        """The next batch, and its epoch."""
        return next(self._batches)

    def learn(self, epoch: int, batch: Batch) -> float:
        """A step."""
        self.clips += len(batch.index)
        return self.step(batch, epoch, self._asked)["loss"]

    def _forever(self) -> Iterator[tuple[int, Batch]]:
        for epoch in itertools.count():
            for batch in batches(self.task, self.config.batch, epoch):
                yield epoch, batch


@dataclass(frozen=True)
class Work:
    """A pretext, by its short name, on the clips of `store`; `small` makes the encoder tiny."""

    name: str
    store: Path
    device: str
    small: bool = False

    @cached_property
    def recipe(self) -> Recipe:
        """What is timed, on this store."""
        changes = [f"data.store={self.store}", "data.split=all", f"device={self.device}"]
        return load_recipe(RECIPE, changes + ["encoder.hidden=8"] * self.small)

    @cached_property
    def run(self) -> Run:
        """The run of that recipe; nothing is written."""
        return Run(self.store / "no_run", self.recipe)

    @property
    def stage(self) -> StageConfig:
        """The stage of the recipe that trains this pretext."""
        return self.recipe.stages[STAGES[self.name]]

    @property
    def encoder(self) -> GRUConfig:
        """The recipe's encoder."""
        if not isinstance(self.recipe.encoder, GRUConfig):
            raise TypeError(f"{self.recipe.name}: has another encoder than a GRU")
        return self.recipe.encoder

    def pretext(self, *, dropout: bool = True) -> Pretext:
        """The pretext with its random start; a teacher has its own."""
        run = (
            self.run
            if dropout
            else Run(self.run.folder, self.recipe.model_copy(update={"encoder": self.dry_encoder}))
        )
        first = self.recipe.stages[0]
        teacher = Teacher(run.build_encoder(first), first.pretext.input)
        encoder = run.build_encoder(self.stage)
        return self.stage.pretext.build(encoder, PoseShape(20, 3, 1), {first.name: teacher})

    def form(self, name: str, batch: int) -> OurTraining | UsualTraining:
        """One of `FORMS`."""
        if name in (USUAL, OWN):
            return self.usual(batch, own_frames=name == OWN)
        return self.ours(name.removeprefix("ours "), batch)

    def ours(self, precision: str, batch: int, *, dropout: bool = True) -> OurTraining:
        """Training of the package."""
        changes = {"precision": precision, "batch": batch}
        config = TrainingConfig.from_tree(self.stage.training.to_tree() | changes, "training")
        return OurTraining(self.task(dropout=dropout), config)

    def task(self, *, dropout: bool = True) -> Task:
        """What the package trains on."""
        run = self.run
        pretext = self.pretext(dropout=dropout)
        return Task(
            self.stage.name, pretext, run.packed, run.training_clips, self.recipe.data, self.recipe.seed
        )

    def usual(self, batch: int, *, own_frames: bool = False) -> UsualTraining:
        """Training in the usual form, of clips of T frames as ours, or as long as they were recorded."""
        config = self.stage.pretext
        frames = None if own_frames else self.recipe.data.frames
        views = usual_views(config, self.teacher_streams)
        dataset = UsualClips(clips_of(self.run.store), views, config.input.augment, frames)
        network = usual_form(config, self.encoder, self.teacher_streams)
        network.load(self.pretext())
        optimiser = self.stage.training.optimiser
        rate, decay = optimiser.lr, optimiser.weight_decay
        return UsualTraining(
            network,
            dataset,
            batch,
            lambda parameters: torch.optim.AdamW(parameters, rate, weight_decay=decay),
            torch.device(self.device),
        )

    @property
    def teacher_streams(self) -> tuple[str, ...]:
        """What a teacher sees."""
        return self.recipe.stages[0].pretext.input.streams

    @property
    def dry_encoder(self) -> GRUConfig:
        """The encoder without dropout."""
        return self.encoder.model_copy(update={"dropout": 0.0})
