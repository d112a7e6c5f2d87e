"""Plans: YAML files that say what is tried, with which seeds, and how it is scored (docs/experiments.md)."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import AfterValidator, Field, model_validator
from trials import EVALUATORS, Trial

from ssl_skeleton.config import Config, read_yaml
from ssl_skeleton.data.splits import SplitName
from ssl_skeleton.errors import UserError, nearest
from ssl_skeleton.recipe import Name


def _check_evaluator(name: str) -> str:
    if name not in EVALUATORS:
        raise ValueError(f"no evaluator '{name}'; {nearest(name, EVALUATORS)}")
    return name


def _check_key(key: str) -> str:
    """Refuse what a plan says by keys of its own."""
    if key.partition("=")[0] in ("seed", "name"):
        raise ValueError(f"'{key}': seeds stand under seeds, and every trial has a name of its own")
    return key


Evaluator = Annotated[str, AfterValidator(_check_evaluator)]
Key = Annotated[str, AfterValidator(_check_key)]  # a key path, or an override that begins with one
Seed = Annotated[int, Field(ge=0, lt=2**63)]
_TRIES = 100  # draws for each trial that is wanted, before there are said to be too few


class Draw(Config):
    """How a value is drawn: one of `choice`, or between two bounds, by itself or by its logarithm."""

    choice: Annotated[tuple[Any, ...], Field(min_length=1)] | None = None
    uniform: tuple[float, float] | None = None
    log_uniform: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("say one of choice: [...], uniform: [a, b], log_uniform: [a, b]")
        low, high = self.uniform or self.log_uniform or (0, 1)
        if low >= high or (self.log_uniform and low <= 0):
            raise ValueError(f"from {low:g} to {high:g} nothing can be drawn")
        return self

    def value(self, rng: np.random.Generator) -> Any:
        """The next value; numbers have four digits, so that a log of them can be read."""
        if self.choice is not None:
            return self.choice[rng.integers(len(self.choice))]
        low, high = self.uniform or self.log_uniform or (0.0, 1.0)
        share = rng.uniform()
        drawn = low + share * (high - low) if self.uniform else low * (high / low) ** share
        return min(max(float(f"{drawn:.4g}"), low), high)


class Random(Config):
    """So many trials of values drawn by `seed`; in the file, key paths stand beside these two.

    Raises UserError where so many different ones are not to be had.
    """

    count: int = Field(ge=1)
    seed: Seed = 0
    draws: dict[Key, Draw] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        own = {key: value for key, value in tree.items() if key in ("count", "seed")}
        return own | {"draws": {key: value for key, value in tree.items() if key not in own}}

    def changes(self) -> list[tuple[str, ...]]:
        """The overrides of every trial, all different; a larger `count` adds more to the same ones."""
        rng, found = np.random.default_rng(self.seed), dict[tuple[str, ...], None]()
        for _ in range(_TRIES * self.count):
            found[tuple(_override(key, draw.value(rng)) for key, draw in self.draws.items())] = None
            if len(found) == self.count:
                return list(found)
        different = f"only {len(found)} different trials were drawn; ask for less"
        raise UserError(f"random.count: {self.count}, but {different}")


class Plan(Config):
    """What is tried: named rows of overrides, every point of a grid, and random draws.

    recipe       the recipe that all of it changes
    fixed        overrides of every trial
    rows         named single changes, as of an ablation
    grid         values by key path; every combination is a trial
    random       trials of random values
    seeds        each of which every one is trained with
    evaluators   what scores it; the first one sorts the log of a sweep
    final_split  the published split, whose test clips no sweep may see
    scored_as    named overrides with which every run is scored, such as representation.stages=[one], where it
                 shall not be scored as it is; each is a row of its own
    """

    recipe: str
    fixed: tuple[Key, ...] = ()
    rows: dict[Name, tuple[Key, ...]] = Field(default={})
    grid: dict[Key, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default={})
    random: Random | None = None
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    evaluators: Annotated[tuple[Evaluator, ...], Field(min_length=1)] = ("linear", "knn")
    final_split: SplitName | None = None
    scored_as: dict[Name, tuple[Key, ...]] = Field(default={})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.rows or self.grid or self.random):
            raise ValueError("nothing to try; give it rows, a grid or random draws")
        return self

    def trials(self) -> list[Trial]:
        """Every trial, all of one seed before those of the next; the same plan always gives the same ones."""
        drawn = self.random.changes() if self.random else []
        changes = [*self.rows.items(), *(("", change) for change in (*self.points(), *drawn))]
        return [self.trial(row, change, seed) for seed in self.seeds for row, change in changes]

    def trial(self, row: str, change: tuple[str, ...], seed: int) -> Trial:
        """A trial of the recipe with what is fixed and a change, which may undo some of that."""
        overrides = _lasting((*self.fixed, *change))
        return Trial(row, Path(self.recipe), overrides, seed, tuple(self.scored_as.items()))

    def points(self) -> list[tuple[str, ...]]:
        """The overrides of every point of the grid, the last key changing fastest."""
        axes = [[_override(key, value) for value in values] for key, values in self.grid.items()]
        return list(itertools.product(*axes)) if axes else []


def read_plan(path: Path) -> Plan:
    """Read a plan from YAML; UserError, one line, when it is none."""
    return Plan.from_tree(read_yaml(path), str(path))


def _override(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _lasting(overrides: Sequence[str]) -> tuple[str, ...]:
    """Without those that a later one undoes, which recipes refuse."""
    paths = [f"{override.partition('=')[0]}." for override in overrides]
    undone = [any(path.startswith(later) for later in paths[place:]) for place, path in enumerate(paths, 1)]
    return tuple(override for override, gone in zip(overrides, undone, strict=True) if not gone)
