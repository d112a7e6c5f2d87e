"""A run: a recipe carried out in a folder that holds all it gave (docs/architecture.md)."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import torch
import yaml

from ssl_skeleton.config import apply_overrides, read_yaml
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.data.views.view import check_view, make_view
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.environment import describe_environment, pick_device
from ssl_skeleton.errors import UserError
from ssl_skeleton.files import read_json, write_json, write_text
from ssl_skeleton.pretext.base import INPUT, PoseShape, Pretext, Teacher
from ssl_skeleton.recipe import Body, Recipe, StageConfig, body_of, check_split_of, recipe_difference
from ssl_skeleton.skeleton.layout import Layout
from ssl_skeleton.training.checkpoint import Checkpoint, load_checkpoint, load_state
from ssl_skeleton.training.loop import Progress, Task, checkpoint_path, train
from ssl_skeleton.training.seeds import derive_seed

Watcher = Callable[[StageConfig, int, dict[str, float]], None]
_RECIPE, _BODY = "recipe.yaml", "body.json"
_EVALUATION_KEYS = ("evaluation.", "device=", "encoder.kernel=", "data.store=", "data.split=")


@dataclass(frozen=True)
class Run:
    """A run folder and its recipe."""

    folder: Path
    recipe: Recipe

    @classmethod
    def start(cls, recipe: Recipe, folder: Path, *, resume: bool = False) -> Self:
        """A new run in `folder`, or with `resume` the one that is there, whose recipe must be the same.

        The kept recipe names its store by its full path, so that the run can be evaluated from anywhere.
        """
        recipe = recipe.with_absolute_paths()
        run = cls(folder, recipe)
        kept = folder / _RECIPE
        if kept.exists():
            if not resume:
                raise UserError(f"{folder}: holds a run already; add --resume, or choose another name=...")
            there = Recipe.from_tree(read_yaml(kept), str(kept))
            difference = recipe_difference(there, recipe)
            if difference is not None:
                raise UserError(
                    f"{folder}: holds another recipe ({difference}); repeat the overrides it began with, "
                    "or choose another name=..."
                )
            if not (folder / _BODY).is_file():
                with _writing(folder):
                    write_json(folder / _BODY, run.body.to_tree())
            return run
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder}: is not empty and holds no run; choose another name=...")
        run._check()
        environment = describe_environment(run.device)
        with _writing(folder):
            write_json(folder / _BODY, run.body.to_tree())  # first: whatever has a recipe has a body
            write_text(kept, yaml.safe_dump(recipe.to_tree(), sort_keys=False))
            write_json(folder / "environment.json", environment)
        return run

    @classmethod
    def open(cls, folder: Path, overrides: Sequence[str] = ()) -> Self:
        """The run in `folder`; overrides may change how it is evaluated, not what it is."""
        path = folder / _RECIPE
        if not path.is_file():
            raise UserError(f"{folder}: not a run; make one with: python -m ssl_skeleton.pretrain")
        for override in overrides:
            if not override.startswith(_EVALUATION_KEYS):
                raise UserError(f"'{override}': only {', '.join(_EVALUATION_KEYS)} can change after training")
        tree = apply_overrides(read_yaml(path), overrides)
        if any(override.startswith("data.store=") for override in overrides):
            check_split_of(tree["data"])
        return cls(folder, Recipe.from_tree(tree, str(path)))

    @cached_property
    def device(self) -> torch.device:
        """Where it computes."""
        return pick_device(self.recipe.device)

    @cached_property
    def stores(self) -> tuple[Store, ...]:
        """The stores it learns from, or is evaluated on."""
        return tuple(open_store(Path(store)) for store in self.recipe.data.stores)

    @property
    def store(self) -> Store:
        """The one store; UserError when there are several."""
        if len(self.stores) > 1:
            raise UserError(
                f"{self.folder}: learned from {len(self.stores)} stores; say which one to evaluate on: "
                f"data.store=STORE data.split=SPLIT"
            )
        return self.stores[0]

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """The training and test clips of every store."""
        pairs = zip(self.stores, self.recipe.data.splits, strict=True)
        return tuple(store.split(name) for store, name in pairs)

    @cached_property
    def body(self) -> Body:
        """The joints and coordinates that its encoders see, which are those that they were trained on.

        A run that does not keep them yet has those of the store that it learned from.
        """
        kept, began = self.folder / _BODY, self.folder / _RECIPE
        if kept.is_file():
            return Body.from_tree(read_json(kept), str(kept))
        data = self.recipe.data
        if began.is_file():
            data = Recipe.from_tree(read_yaml(began), str(began)).data
        if data.stores == self.recipe.data.stores:
            return body_of(data, self.stores[0])
        try:
            return body_of(data, open_store(Path(data.stores[0])))
        except UserError as error:
            raise UserError(f"{self.folder}: has no {_BODY} to see other stores with: {error}") from None

    @property
    def layout(self) -> Layout:
        """The joints that its encoders see."""
        return self.body.layout

    @cached_property
    def packed(self) -> PackedClips:
        """The frames of all stores on the device; UserError when one has other coordinates than the run."""
        data, wanted = self.recipe.data, self.body.coordinates
        for store in self.stores:
            if store.meta.coordinates != wanted:
                raise UserError(
                    f"{store.path}: has {', '.join(store.meta.coordinates)}, but the run sees "
                    f"{', '.join(wanted)}; choose a store with the same coordinates"
                )
        return PackedClips(self.stores, data.bodies, self.device, self.layout, data.repair, order=data.order)

    @property
    def training_clips(self) -> list[torch.Tensor]:
        """The clips of `packed` that it trains on, (N,) of every store."""
        begins = itertools.accumulate(map(len, self.stores[:-1]), initial=0)
        parts = zip(self.splits, begins, strict=True)
        return [torch.from_numpy(split.train + begin) for split, begin in parts]

    def pretrain(
        self,
        watch: Watcher = lambda stage, epoch, values: None,
        progress: Progress = lambda batches, total, what: batches,
    ) -> None:
        """Train every stage that is not finished yet, on the training part of the split, without labels.

        `watch` is called after every epoch; `progress` wraps the batches of an epoch.
        """
        for stage in self.recipe.stages:
            checkpoint = self._checkpoint(stage)
            if checkpoint is not None and checkpoint.epoch >= stage.training.epochs:
                continue
            task = Task(
                stage.name,
                self.build_pretext(stage),
                self.packed,
                self.training_clips,
                self.recipe.data,
                self.recipe.seed,
                self.recipe.data.balance == "balanced",
            )
            train(
                task, stage.training, self.folder, checkpoint, watch=partial(watch, stage), progress=progress
            )

    def build_pretext(self, stage: StageConfig) -> Pretext:
        """The pretext of a stage with its random start, and its teachers as they were trained."""
        return self._build_pretext(stage, self.trained_encoder)

    def _build_pretext(self, stage: StageConfig, teacher: Callable[[StageConfig], Encoder]) -> Pretext:
        teachers = {}
        for name in stage.pretext.teacher_names():
            earlier = self._stage(name)
            teachers[name] = Teacher(teacher(earlier), earlier.pretext.input)
        encoder = self.build_encoder(stage)
        shape = PoseShape(*self._pose(), self.recipe.data.bodies)
        return stage.pretext.build(encoder, shape, teachers)

    def build_encoder(self, stage: StageConfig, repeat: int = 0) -> Encoder:
        """The encoder of a stage with its random start; that of a later `repeat` is another one."""
        again = (repeat,) if repeat else ()
        torch.manual_seed(derive_seed(self.recipe.seed, stage.name, "init", *again))
        channels = self._pose()[1] * len(stage.pretext.input.streams)
        return self.recipe.encoder.build(self.layout, channels, self.recipe.data.bodies)

    def trained_encoder(self, stage: StageConfig) -> Encoder:
        """The encoder of a stage after its last epoch."""
        checkpoint = self._checkpoint(stage)
        path, epochs = checkpoint_path(self.folder, stage.name), stage.training.epochs
        if checkpoint is None:
            raise UserError(f"{path}: no such checkpoint; train it, or go on with pretrain --resume")
        if checkpoint.epoch < epochs:
            raise UserError(f"{path}: stands at epoch {checkpoint.epoch} of {epochs}; go on with --resume")
        prefix = "encoder."
        state = {
            name.removeprefix(prefix): tensor
            for name, tensor in checkpoint.pretext.items()
            if name.startswith(prefix)
        }
        encoder = self.build_encoder(stage)
        load_state(encoder, state, path)
        return encoder

    @property
    def evaluated_stages(self) -> list[StageConfig]:
        """The stages whose encoders make the representation."""
        return [self._stage(name) for name in self.recipe.evaluated_stages]

    def _stage(self, name: str) -> StageConfig:
        return next(stage for stage in self.recipe.stages if stage.name == name)

    def _checkpoint(self, stage: StageConfig) -> Checkpoint | None:
        path = checkpoint_path(self.folder, stage.name)
        return load_checkpoint(path, stage.name) if path.exists() else None

    def _pose(self) -> tuple[int, int]:
        """V joints and C coordinates."""
        return len(self.layout.joints), len(self.body.coordinates)

    def _check(self) -> None:
        """Meet everything that can be wrong before the folder is made."""
        bodies, most = self.recipe.data.bodies, max(store.meta.bodies for store in self.stores)
        if bodies > most:
            paths = ", ".join(str(store.path) for store in self.stores)
            raise UserError(f"data.bodies: {bodies}, but no clip of {paths} has more than {most}")
        _ = self.splits, self.packed
        for stage in self.recipe.stages:
            pretext = self._build_pretext(stage, self.build_encoder)
            for wanted in pretext.views.values():
                check_view(self.layout, self.body.coordinates, self.recipe.data, wanted.view)
            self._try(pretext)

    @torch.no_grad()
    def _try(self, pretext: Pretext) -> None:
        """Encode one clip: not every encoder runs on every machine."""
        first = torch.zeros(1, dtype=torch.int64)
        clips = make_view(self.packed, first, self.recipe.data, pretext.views[INPUT].view, None)
        pretext.encoder.to(self.device).eval()(clips.x, clips.lengths)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from None
