"""The recipe: a whole run as one typed tree, read from YAML."""

import difflib
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ssl_skeleton.config import Config, leaves, read_yaml
from ssl_skeleton.data.frames import Residence
from ssl_skeleton.data.repair import RepairConfig
from ssl_skeleton.data.splits import SplitName
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.data.views.view import SamplingConfig
from ssl_skeleton.encoders import AnyEncoder
from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.encoders.pooling import Pooling
from ssl_skeleton.errors import UserError, nearest
from ssl_skeleton.evaluation.clustering import ClusterConfig
from ssl_skeleton.evaluation.finetune import FinetuneConfig
from ssl_skeleton.evaluation.fusion import FusionConfig
from ssl_skeleton.evaluation.knn import KnnConfig
from ssl_skeleton.evaluation.linear import AnyLinear, LinearConfig
from ssl_skeleton.evaluation.retrieval import RetrieveConfig
from ssl_skeleton.evaluation.shown import EarlyConfig, RobustnessConfig
from ssl_skeleton.pretext import AnyPretext
from ssl_skeleton.skeleton.layout import Layout, find_layout, layout_names
from ssl_skeleton.training.config import TrainingConfig
from ssl_skeleton.watching import WatchConfig

# What makes no difference: on what machine a run is, what is looked at on the way, and what is kept of it.
_OF_NO_NUMBER = re.compile(
    r"device|data\.residence|encoder\.(encoder\.)?kernel|watch(\..*)?"
    r"|stages\.\d+\.training\.(compile|checkpoint_every|checkpoint_steps|keep|keep_best)"
)
Name = Annotated[SplitName, Field(max_length=100)]  # of files, too


class DataConfig(SamplingConfig):
    """Prepared stores, how they are split, and how clips are sampled from them.

    store      a store, or several that are pretrained on together
    split      the split of each; one name stands for all
    layout     the joints that an encoder sees: a layout's name or file; null takes the store's own
    balance    `proportional` shows every clip once an epoch, `balanced` equally many of each store
    repair     what is repaired when recordings are loaded
    residence  where frames are meanwhile: in the memory of the device, or of the host, or `mapped`: still in
               the stores' files
    """

    store: str | tuple[str, ...]
    split: str | tuple[str, ...]
    layout: str | None = None
    balance: Literal["proportional", "balanced"] = "proportional"
    repair: RepairConfig = RepairConfig()
    residence: Residence = "device"

    @model_validator(mode="after")
    def _check_stores(self) -> Self:
        if not self.stores:
            raise ValueError("store: name at least one")
        if isinstance(self.split, tuple) and len(self.split) != len(self.stores):
            counts = f"{len(self.split)} names for {len(self.stores)} stores"
            raise ValueError(f"split: {counts}; give one for each, or one for all, as in data.split=NAME")
        if len(set(self.stores)) != len(self.stores):
            raise ValueError("store: one stands twice")
        return self

    @property
    def stores(self) -> tuple[str, ...]:
        """The stores, however many."""
        return (self.store,) if isinstance(self.store, str) else self.store

    @property
    def splits(self) -> tuple[str, ...]:
        """The split of every store."""
        return (self.split,) * len(self.stores) if isinstance(self.split, str) else self.split


class Body(Config):
    """What the encoders of a run see of a body: its joints, and the coordinates of each."""

    layout: Layout
    coordinates: tuple[str, ...] = Field(min_length=1)


class StageConfig(Config):
    """One stage: a pretext and how it trains. Later stages may name it as their teacher."""

    name: Name
    pretext: AnyPretext
    training: TrainingConfig = TrainingConfig()


class RepresentationConfig(Config):
    """What is evaluated: the pooled features of these stages, one after another; by default the last one."""

    stages: tuple[Name, ...] = ()
    pooling: Pooling = "mean"


class EvaluationConfig(Config):
    """How the representation is scored.

    clips       through how many windows the linear probe sees a test clip: they are evenly placed, and the
                class probabilities are averaged; 1 shows the whole clip, 50 are the most
    clip_share  how much of the clip each of several windows shows; the probe learns from whole clips
    """

    clips: int = Field(default=1, ge=1, le=50)
    clip_share: float = Field(default=0.9, gt=0, le=1)
    linear: AnyLinear = LinearConfig()
    knn: KnnConfig = KnnConfig()
    retrieve: RetrieveConfig = RetrieveConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    cluster: ClusterConfig = ClusterConfig()
    fuse: FusionConfig = FusionConfig()
    early: EarlyConfig = EarlyConfig()
    robustness: RobustnessConfig = RobustnessConfig()


class Recipe(Config):
    """A run: from a store to scores. Everything that can change a number is in here."""

    name: Name
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    data: DataConfig
    encoder: AnyEncoder = GRUConfig()
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    representation: RepresentationConfig = RepresentationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    watch: WatchConfig = WatchConfig()

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
        earlier: list[str] = []
        for number, stage in enumerate(self.stages):
            if stage.name in earlier:
                raise ValueError(f"stages.{number}.name: '{stage.name}' stands twice")
            for other in self.stages:
                if re.fullmatch(rf"{re.escape(other.name)}-(best|epoch-\d+)", stage.name):
                    raise ValueError(
                        f"stages.{number}.name: checkpoints of stage '{other.name}' are called so"
                    )
            for teacher in stage.pretext.teacher_names():
                if teacher not in earlier:
                    hint = nearest(teacher, earlier) if earlier else "the first stage can have none"
                    raise ValueError(f"stages.{number}.pretext.teacher: no earlier stage '{teacher}'; {hint}")
            earlier.append(stage.name)
        for name in self.representation.stages:
            if name not in earlier:
                raise ValueError(f"representation.stages: no stage '{name}'; {nearest(name, earlier)}")
        return self

    def with_absolute_paths(self) -> Self:
        """The same recipe with the full paths of its stores and of a layout file."""
        paths: dict[str, object] = {"store": tuple(map(_full_path, self.data.stores))}
        if isinstance(self.data.store, str):
            paths["store"] = _full_path(self.data.store)
        if self.data.layout is not None and self.data.layout not in layout_names():
            paths["layout"] = _full_path(self.data.layout)
        return self.model_copy(update={"data": self.data.model_copy(update=paths)})

    @property
    def evaluated_stages(self) -> tuple[str, ...]:
        """The stages whose features make the representation."""
        return self.representation.stages or (self.stages[-1].name,)

    @property
    def needed_stages(self) -> tuple[str, ...]:
        """Those, and all that taught them."""
        needed = set(self.evaluated_stages)
        for stage in reversed(self.stages):  # teachers come before their students
            if stage.name in needed:
                needed.update(stage.pretext.teacher_names())
        return tuple(stage.name for stage in self.stages if stage.name in needed)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from YAML and apply `key.path=value` overrides.

    `NAME.yaml` or `configs/NAME.yaml` that is not there is taken from the configs that come with the package.
    """
    found = path if path.exists() or path.parent not in (Path(), Path("configs")) else _shipped(path)
    return Recipe.from_overridden(read_yaml(found), overrides, str(path))


def body_of(data: DataConfig, store: Store) -> Body:
    """What encoders see that learn from this store, the first of `data`."""
    layout = store.layout if data.layout is None else find_layout(data.layout)
    return Body(layout=layout, coordinates=store.meta.coordinates)


def check_split_of(data: dict[str, Any]) -> None:
    """Refuse one store with the splits of several; `data` is the tree of a DataConfig.

    The config would refuse them too, but blame the recipe, where they stand well.
    """
    store, splits = data["store"], data.get("split")
    if isinstance(store, str) and isinstance(splits, list) and len(splits) > 1:
        names = ", ".join(open_store(Path(store)).split_names)
        raise UserError(f"{store}: say which split to evaluate on with data.split=NAME; it has {names}")


def recipe_differences(one: Config, other: Config) -> list[str]:
    """The key paths in which two configs differ, each with both values."""
    differing = differing_keys(one, other)
    return [f"{key} is {there!r} there, {here!r} here" for key, (there, here) in differing.items()]


def differing_keys(one: Config, other: Config) -> dict[str, tuple[object, object]]:
    """The values of two configs where they differ, by key path; None where one lacks the key.

    What is of the machine, or can change no number, is no difference: a run may go on with another.
    """
    left, right = leaves(one.to_tree()), leaves(other.to_tree())
    return {
        key: (left.get(key), right.get(key))
        for key in left | right
        if left.get(key) != right.get(key) and not _OF_NO_NUMBER.fullmatch(key)
    }


def _full_path(path: str) -> str:
    """The absolute path, without `..` unless a link makes it lead elsewhere: one store has one path."""
    full = Path(path).absolute()
    plain = Path(os.path.normpath(full))
    with suppress(OSError):
        if plain.samefile(full):
            return str(plain)
    return str(full)


def _shipped(path: Path) -> Path:
    """The config of that file name that comes with the package."""
    package = Path(str(resources.files("ssl_skeleton")))
    for folder in (
        package / "configs",
        package.parent / "configs",
    ):  # in a wheel, in a checkout
        if (folder / path.name).is_file():
            return folder / path.name
        known = [file.name for file in sorted(folder.glob("*.yaml"))]
        close = difflib.get_close_matches(path.name, known, n=1)
        if known:
            hint = f"did you mean configs/{close[0]}?" if close else f"the package has {', '.join(known)}"
            raise UserError(f"{path}: no such file; {hint}")
    raise UserError(f"{path}: no such file")
