"""Result files read again, and checked: they may come from strangers, or be of an older kind."""

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ssl_skeleton.config import Config
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.results import COLUMNS
from ssl_skeleton.files import read_json

Share = Annotated[float, Field(ge=-1, le=1)]
Class = Annotated[int, Field(ge=0, lt=2**31)]
_MOST_BYTES = 1 << 28


class Scored(Config):
    """What a representation or a baseline scored.

    scores     by the name of the score and, as a score for each k has several values, by their key
    predicted  the answers (R, N) for N clips in R repeats; older results have none
    """

    scores: dict[str, Annotated[dict[str, Share], Field(min_length=1)]]
    predicted: tuple[tuple[Class, ...], ...] = ()

    @model_validator(mode="after")
    def _check_answers(self) -> Self:
        counts = {len(answers) for answers in self.predicted}
        if len(counts) > 1:
            raise ValueError(f"predicted: has {min(counts)} answers of one repeat, {max(counts)} of another")
        return self


class Result(Scored):
    """What comparisons look at in a result (`probing.about`); older ones lack what has a default here.

    `more` is what belongs to the protocol as well: how baselines were probed, through which windows. Of a
    fusion, `recipes` are those of its runs. `parts` are scored beside it, as each of these runs alone.
    """

    path: str
    evaluator: str = Field(min_length=1)
    store: str
    store_path: str = ""
    store_sum: str = ""
    split: str
    protocol: dict[str, Any]
    more: dict[str, Any]
    streams: tuple[str, ...] = ()
    epoch: int
    seed: int
    clips: dict[str, Annotated[int, Field(ge=0)]]
    overridden: dict[str, Any] = Field(default={})
    recipes: tuple[dict[str, Any], ...] = ()
    parts: dict[str, Scored] = Field(default={})
    baselines: dict[str, Scored] = Field(default={})

    @property
    def part(self) -> str:
        """The part of the split that was scored: the training part where clips were left out one by one."""
        return "test" if "test" in self.clips else "train"

    @property
    def represented(self) -> tuple[str, ...]:
        """The overrides by which another representation was scored than the recipe's own."""
        shown = {key: value for key, value in self.overridden.items() if key.startswith("representation.")}
        return tuple(f"{key}={json.dumps(value)}" for key, value in shown.items())


def read_results(folder: Path) -> list[Result]:
    """The results in `eval/` of a run folder; UserError names the first that cannot be read."""
    return [_read(path) for path in sorted((folder / "eval").glob("*.json")) if path.is_file()]


def _read(path: Path) -> Result:
    if (size := path.stat().st_size) > _MOST_BYTES:
        raise UserError(f"{path}: {size} bytes are too many for a result; evaluate again")
    try:
        tree = read_json(path)
        if not isinstance(tree, dict):
            raise UserError(f"{path}: holds no result; evaluate again, or remove it")
        picked = {name: tree[name] for name in Result.model_fields if name in tree} | _scored(tree)
        more = {name: tree[name] for name in tree if name == "windows" or name.endswith("_protocol")}
        picked |= {"path": str(path), "more": more}
        for beside in ("parts", "baselines"):
            if isinstance(tree.get(beside), dict):
                picked[beside] = {name: _scored(scores) for name, scores in tree[beside].items()}
        if isinstance(tree.get("runs"), list):
            picked["recipes"] = [_recipe(one, path) for one in tree["runs"]]
        return Result.from_tree(picked, str(path))
    except RecursionError:
        raise UserError(f"{path}: holds no result, but lists in lists in lists; evaluate again") from None


def _recipe(run: Any, path: Path) -> Any:
    if not isinstance(run, dict) or "recipe" not in run:
        raise UserError(f"{path}: does not hold the recipes of the runs that were fused; fuse them again")
    return run["recipe"]


def _scored(tree: Any) -> Any:
    """The tree of a `Scored`: every score by key, and answers by repeat, though there be one alone.

    Of curves, the area under each is a score.
    """
    if not isinstance(tree, dict):
        return tree
    values = {name: tree[name] for name in COLUMNS if name in tree}
    if isinstance(curves := tree.get("curves"), dict):
        values["area"] = {name: isinstance(one, dict) and one.get("area") for name, one in curves.items()}
    scores = {name: value if isinstance(value, dict) else {"": value} for name, value in values.items()}
    answers = tree.get("predicted", [])
    once = isinstance(answers, list) and answers and not isinstance(answers[0], list)
    return {"scores": scores, "predicted": [answers] if once else answers}
