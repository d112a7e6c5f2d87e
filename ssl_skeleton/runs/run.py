"""A run: a recipe carried out in a folder that holds all it gave (docs/architecture.md)."""

import itertools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
import yaml

from ssl_skeleton import ranks
from ssl_skeleton.config import apply_overrides, read_yaml
from ssl_skeleton.data.views.view import check_view, make_view
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.tensor_file import at_most
from ssl_skeleton.environment import describe_environment
from ssl_skeleton.errors import UserError
from ssl_skeleton.files import contents, locked, write_json, write_text, writing
from ssl_skeleton.pretext.base import INPUT, PoseShape, Pretext, Teacher
from ssl_skeleton.recipe import (
    Recipe,
    StageConfig,
    body_of,
    check_split_of,
    load_recipe,
    recipe_differences,
)
from ssl_skeleton.runs.data import BODY, ENVIRONMENT, RECIPE, RunData
from ssl_skeleton.training.checkpoint import Checkpoint, Checkpoints, load_state
from ssl_skeleton.training.loop import Report, train
from ssl_skeleton.training.seeds import derive_seed
from ssl_skeleton.training.step import Step, autocast
from ssl_skeleton.training.task import Task
from ssl_skeleton.watching import check_watch, observers

_EVALUATION_KEYS = (
    "evaluation.",
    "representation.",
    "device=",
    "encoder.kernel=",
    "data.store=",
    "data.split=",
    "data.residence=",
)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Run(RunData):
    """A run folder and its recipe: trains the recipe's stages, and gives their encoders."""

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        folder: Path,
        *,
        resume: bool = False,
        resume_anyway: bool = False,
        tell: Tell = lambda line: None,
    ) -> Self:
        """A new run in `folder`, or with `resume` the one that is there, whose recipe must be the same.

        `resume_anyway` goes on with this recipe in place of another one, which is kept beside it; `tell` gets
        a line on all that goes on otherwise than it began. The kept recipe names its store by its full path,
        so that the run can be evaluated from anywhere.
        """
        run = cls(folder, recipe.with_absolute_paths())
        ranks.on_main(lambda: run._begin(resume=resume or resume_anyway, anyway=resume_anyway, tell=tell))
        return run

    @classmethod
    def open(cls, folder: Path, overrides: Sequence[str] = ()) -> Self:
        """The run in `folder`; overrides may change how it is evaluated, not what it is."""
        path = folder / RECIPE
        if not path.is_file():
            raise UserError(f"{folder}: not a run; make one with: python -m ssl_skeleton.pretrain")
        for override in overrides:
            if not override.startswith(_EVALUATION_KEYS):
                raise UserError(f"'{override}': only {', '.join(_EVALUATION_KEYS)} can change after training")
        tree = read_yaml(path)
        if any(override.startswith("data.store=") for override in overrides):
            check_split_of(apply_overrides(tree, overrides)["data"])
        return cls(folder, Recipe.from_overridden(tree, overrides, str(path)))

    def pretrain(self, report: Report = lambda standing: None) -> tuple[str, ...]:
        """Train every stage that is not finished yet, on the training part of the split, without labels.

        Gives their names. `report` is called after every step. Nobody else can write the folder meanwhile.
        """
        with ExitStack() as held:
            ranks.on_main(lambda: held.enter_context(locked(self.folder)))
            unfinished = [stage for stage in self.recipe.stages if not self._is_finished(stage)]
            for stage in unfinished:
                self._train(stage, report)
        return tuple(stage.name for stage in unfinished)

    def build_pretext(self, stage: StageConfig) -> Pretext:
        """The pretext of a stage with its random start, and its teachers as they were trained."""
        return self._build_pretext(stage, self.trained_encoder)

    def build_encoder(self, stage: StageConfig, repeat: int = 0) -> Encoder:
        """The encoder of a stage with its random start; that of a later `repeat` is another one."""
        again = (repeat,) if repeat else ()
        torch.manual_seed(derive_seed(self.recipe.seed, stage.name, "init", *again))
        channels = self._pose()[1] * len(stage.pretext.input.streams)
        return self.recipe.encoder.build(self.layout, channels, self.recipe.data.bodies)

    def trained_encoder(self, stage: StageConfig) -> Encoder:
        """The encoder of a stage after its last epoch."""
        path, checkpoint = self._checkpoints(stage).path, self._checkpoints(stage).load()
        if checkpoint is None:
            raise UserError(f"{path}: no such checkpoint; train it (finetune --from-scratch keeps none)")
        if checkpoint.epoch < (epochs := stage.training.epochs):
            raise UserError(f"{path}: stands at epoch {checkpoint.epoch} of {epochs}; go on with --resume")
        prefix = "encoder."
        state = {
            name.removeprefix(prefix): tensor
            for name, tensor in checkpoint.pretext.items()
            if name.startswith(prefix)
        }
        with at_most(path.stat().st_size, f"{path}: the encoder of the recipe"):
            encoder = self.build_encoder(stage)
        load_state(encoder, state, path)
        return encoder

    @property
    def evaluated_stages(self) -> list[StageConfig]:
        """The stages whose encoders make the representation."""
        return [self._stage(name) for name in self.recipe.evaluated_stages]

    def _begin(self, *, resume: bool, anyway: bool, tell: Tell) -> None:
        kept = self.folder / RECIPE
        if not kept.exists():
            self._make()
        elif not resume:
            raise UserError(f"{self.folder}: holds a run already; add --resume, or choose another name=...")
        else:
            self._go_on(kept, anyway=anyway, tell=tell)

    def _go_on(self, kept: Path, *, anyway: bool, tell: Tell) -> None:
        there = load_recipe(kept).with_absolute_paths()
        differences, again = recipe_differences(there, self.recipe), self.prepared_again()
        if differences and not anyway:
            raise UserError(
                f"{self.folder}: holds another recipe ({differences[0]}); repeat the overrides it began "
                "with, choose another name=..., or go on with this one all the same: --resume-anyway"
            )
        if again and not anyway:
            raise UserError(
                f"{again[0]}: was prepared again since the run began, and is not the same; choose another "
                "name=..., or go on with it all the same: --resume-anyway"
            )
        if not (self.folder / BODY).is_file():
            with writing(self.folder):
                write_json(self.folder / BODY, self.body.to_tree())
        if differences or again:
            others = [f"another recipe: {line}" for line in differences]
            others += [f"another content of {store}" for store in again]
            with locked(self.folder):
                self._replace_recipe(there, others, tell, anew=bool(again))

    def _make(self) -> None:
        """Make the folder of a new run, after everything that can be wrong."""
        self._refuse_other_things()
        self._check()
        environment = describe_environment(self.device) | {"stores": self.store_sums}
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            if (self.folder / RECIPE).exists():
                raise UserError(
                    f"{self.folder}: another process has begun it just now; choose another name=..."
                )
            self._refuse_other_things()
            with writing(self.folder):
                write_json(self.folder / ENVIRONMENT, environment)
                write_json(self.folder / BODY, self.body.to_tree())
                self._write_recipe()  # last: whatever has a recipe has the others

    def _refuse_other_things(self) -> None:
        """Raise UserError when the folder holds more than the beginning of a run that was killed."""
        if any(path.name not in (ENVIRONMENT, BODY) for path in contents(self.folder)):
            raise UserError(f"{self.folder}: is not empty and holds no run; choose another name=...")

    def _replace_recipe(self, there: Recipe, others: Sequence[str], tell: Tell, *, anew: bool) -> None:
        """Let this recipe take the place of another; UserError where the run cannot go on with it.

        `others` tells what is not as before; with `anew` no epoch has the batches that it began with.
        """
        if self.body != body_of(self.recipe.data, self.stores[0]):
            raise UserError(f"{self.folder}: its encoders learn from another body; choose another name=...")
        self._check()
        found = {stage.name: self._loadable(stage) for stage in self.recipe.stages}
        for line in others:
            tell(f"{self.folder}: goes on with {line}")
        for stage in self.recipe.stages:
            checkpoint = found[stage.name]
            if checkpoint is None:
                continue
            if checkpoint.epoch >= stage.training.epochs:
                tell(f"stage {stage.name}: is trained already, and stays as it is")
            elif checkpoint.step and (anew or _order(there, stage.name) != _order(self.recipe, stage.name)):
                tell(f"stage {stage.name}: epoch {checkpoint.epoch + 1} begins anew, in other batches")
                self._checkpoints(stage).save(replace(checkpoint, step=0, totals={}))
        places = (self.folder / f"recipe.{number}.yaml" for number in itertools.count(1))
        older = next(place for place in places if not place.exists())
        with writing(self.folder):
            write_text(older, (self.folder / RECIPE).read_text(encoding="utf-8"))
            self._write_recipe()
            write_json(self.folder / ENVIRONMENT, self.noted() | {"stores": self.store_sums})
        tell(f"{self.folder}: the recipe until here is kept as {older.name}")

    def _loadable(self, stage: StageConfig) -> Checkpoint | None:
        """The checkpoint of a stage, if there is one; UserError when the stage cannot go on from it."""
        checkpoints = self._checkpoints(stage)
        checkpoint = checkpoints.load()
        if checkpoint is not None:
            pretext = self._build_pretext(stage, self.build_encoder)  # the teachers are in the checkpoint
            Step(self._task(stage, pretext), stage.training).load(checkpoint, checkpoints.path)
        return checkpoint

    def _train(self, stage: StageConfig, report: Report) -> None:
        task = self._task(stage, self.build_pretext(stage))
        look = (self.recipe.watch, task, self.recipe.representation.pooling, self.stores)
        watching = ranks.on_main(lambda: observers(*look)) or []
        train(task, stage.training, self.folder, report=report, observers=watching)

    def _task(self, stage: StageConfig, pretext: Pretext) -> Task:
        return Task(
            stage.name,
            pretext,
            self.packed,
            self.training_clips,
            self.recipe.data,
            self.recipe.seed,
            self.recipe.data.balance == "balanced",
            self.clip_names,
        )

    def _build_pretext(self, stage: StageConfig, teacher: Callable[[StageConfig], Encoder]) -> Pretext:
        teachers = {}
        for name in stage.pretext.teacher_names():
            earlier = self._stage(name)
            teachers[name] = Teacher(teacher(earlier), earlier.pretext.input)
        encoder = self.build_encoder(stage)
        shape = PoseShape(*self._pose(), self.recipe.data.bodies)
        return stage.pretext.build(encoder, shape, teachers)

    def _stage(self, name: str) -> StageConfig:
        return next(stage for stage in self.recipe.stages if stage.name == name)

    def _checkpoints(self, stage: StageConfig) -> Checkpoints:
        return Checkpoints(self.folder, stage.name, stage.training.keep, stage.training.keep_best)

    def _is_finished(self, stage: StageConfig) -> bool:
        checkpoint = self._checkpoints(stage).load()
        return checkpoint is not None and checkpoint.epoch >= stage.training.epochs

    def _write_recipe(self) -> None:
        write_text(self.folder / RECIPE, yaml.safe_dump(self.recipe.to_tree(), sort_keys=False))

    def _pose(self) -> tuple[int, int]:
        """V joints and C coordinates."""
        return len(self.layout.joints), len(self.body.coordinates)

    def _check(self) -> None:
        """Meet everything that can be wrong before the folder is made."""
        bodies, most = self.recipe.data.bodies, max(store.meta.bodies for store in self.stores)
        if bodies > most:
            paths = ", ".join(str(store.path) for store in self.stores)
            raise UserError(f"data.bodies: {bodies}, but no clip of {paths} has more than {most}")
        check_watch(self.recipe.watch, self.packed.labels.cpu()[torch.cat(self.training_clips)])
        for stage in self.recipe.stages:
            pretext = self._build_pretext(stage, self.build_encoder)
            for wanted in pretext.views.values():
                check_view(self.layout, self.body.coordinates, self.recipe.data, wanted.view)
            self._try(stage, pretext)

    @torch.no_grad()
    def _try(self, stage: StageConfig, pretext: Pretext) -> None:
        """Encode one clip: not every encoder runs on every machine, nor in every precision."""
        first = torch.zeros(1, dtype=torch.int64)
        clips = make_view(self.packed, first, self.recipe.data, pretext.views[INPUT].view, None)
        encoder, precision = pretext.encoder.to(self.device).eval(), stage.training.precision
        encoder(clips.x, clips.lengths)
        try:
            with autocast(self.device, precision):
                encoder(clips.x, clips.lengths)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"stage {stage.name}: cannot encode in {precision} here ({reason})") from None


def _order(recipe: Recipe, stage: str) -> tuple[object, ...]:
    """What the batches of a stage hang on, which clips they have and in which order."""
    data = recipe.data
    batch = [one.training.batch for one in recipe.stages if one.name == stage]
    return (recipe.seed, data.stores, data.splits, data.balance, batch)
