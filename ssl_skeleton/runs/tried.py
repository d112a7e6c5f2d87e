"""Runs with their results: which differ in their seed alone, and what to call them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from ssl_skeleton.config import leaves
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.comparison.labelling import common_name, telling_labels
from ssl_skeleton.evaluation.comparison.result_files import Result, read_results
from ssl_skeleton.recipe import Recipe, differing_keys
from ssl_skeleton.runs.data import RECIPE
from ssl_skeleton.runs.run import Run

FUSED = "fused"  # the folder beside runs in which fusions lie
_NO_DIFFERENCE = ("name", "seed")  # between the runs of a row


@dataclass(frozen=True)
class Tried:
    """A run, or several that were fused, by their recipes; and the results."""

    folder: Path
    recipes: Sequence[Recipe]
    results: Sequence[Result]

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.folder.absolute().name

    @property
    def seed(self) -> int:
        """The seed of its recipe, of several the first one's."""
        return self.recipes[0].seed

    @property
    def epochs(self) -> tuple[int, ...]:
        """The last epochs of what it evaluates: the first recipe's, and of several whatever others have."""
        found = []
        for recipe in self.recipes:
            epochs = {stage.name: stage.training.epochs for stage in recipe.stages}
            found.append(epochs[recipe.evaluated_stages[-1]])
        return tuple(dict.fromkeys(found))


def read_tried(folders: Sequence[Path]) -> list[Tried]:
    """The runs in these folders, and what was fused there; UserError where one has no results.

    The folder `fused`, which is one of `runs/*`, stands for all that is in it.
    """
    found: dict[Path, list[Tried]] = {}
    for folder in chain.from_iterable(map(_within, folders)):
        if folder.resolve() in found:
            raise UserError(f"{folder}: stands twice; name every run once")
        results = read_results(folder)
        tried = _fused(folder, results)
        own = [result for result in results if not result.recipes]
        if own or (folder / RECIPE).exists() or not tried:
            tried = [*_represented(folder, own), *tried]
        if not results:
            raise UserError(
                f"{folder}: has no results; make some with: python -m ssl_skeleton.linear --run {folder}"
            )
        found[folder.resolve()] = [one for one in tried if one.results]
    return [one for tried in found.values() for one in tried]


def _within(folder: Path) -> list[Path]:
    if folder.name != FUSED or (folder / RECIPE).exists():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/eval")) or [folder]


def _represented(folder: Path, results: Sequence[Result]) -> list[Tried]:
    """A run, and the same with each other representation that was scored."""
    ways = dict.fromkeys([(), *(result.represented for result in results)])
    return [
        Tried(folder, [Run.open(folder, way).recipe], [one for one in results if one.represented == way])
        for way in ways
    ]


def _fused(folder: Path, results: Iterable[Result]) -> list[Tried]:
    """What was fused: results of the same recipes together."""
    found: list[Tried] = []
    for result in results:
        recipes = [
            Recipe.from_tree(tree, f"{result.path}: runs.{number}.recipe")
            for number, tree in enumerate(result.recipes)
        ]
        same = next((place for place, one in enumerate(found) if one.recipes == recipes), None)
        if same is not None:
            found[same] = replace(found[same], results=[*found[same].results, result])
        elif recipes:
            found.append(Tried(folder, recipes, [result]))
    return found


def check_age(one: Tried) -> None:
    """Raise UserError for a result of what the run was before: of another seed, or another last epoch."""
    for result in one.results:
        if result.seed != one.seed:
            raise UserError(
                f"{result.path}: is of seed {result.seed}, but the recipe's is {one.seed}; evaluate again"
            )
        if result.epoch not in (0, one.epochs[0]):  # 0 is from scratch
            raise UserError(f"{result.path}: is of epoch {result.epoch} of {one.epochs[0]}; evaluate again")


def grouped(runs: Sequence[Tried]) -> list[list[Tried]]:
    """The runs that differ in nothing but their seed together; UserError when two do not even in that."""
    groups: list[list[Tried]] = []
    for one in runs:
        for group in groups:
            if _differing(group[0], one):
                continue
            same = next((other for other in group if other.seed == one.seed), None)
            if same is None:
                group.append(one)
                break
            if _seeds(same) == _seeds(one):
                what = f"the same recipe and seed as {same.folder}"
                raise UserError(f"{one.folder}: has {what}; name one of the two")
        else:
            groups.append([one])
    return groups


def _seeds(one: Tried) -> list[int]:
    return [recipe.seed for recipe in one.recipes]


def _differing(one: Tried, other: Tried) -> list[str]:
    """The keys that make two runs more than two seeds of one; of runs fused, each behind its run's number.

    How runs are evaluated is none: every result tells its own protocol.
    """
    if len(one.recipes) != len(other.recipes):
        return ["runs"]
    return [
        f"{number}.{key}" if len(one.recipes) > 1 else key
        for number, pair in enumerate(zip(one.recipes, other.recipes, strict=True))
        for key in differing_keys(*pair)
        if key not in _NO_DIFFERENCE and not key.startswith("evaluation.")
    ]


def _by_runs(groups: Sequence[Sequence[Tried]]) -> list[str]:
    return [common_name([one.name for one in group]) for group in groups]


def _by_recipes(groups: Sequence[Sequence[Tried]]) -> list[str]:
    named = [["+".join(recipe.name for recipe in one.recipes) for one in group] for group in groups]
    return [common_name(names) for names in named]


def _by_keys(groups: Sequence[Sequence[Tried]]) -> list[str]:
    """What differs between the recipes; nothing where runs stand beside fused ones."""
    firsts = [group[0] for group in groups]
    keys = {key for one in firsts[1:] for key in _differing(firsts[0], one)}
    if "runs" in keys:
        return [""] * len(groups)
    facts = []
    for one in firsts:
        tree = {str(number): recipe.to_tree() for number, recipe in enumerate(one.recipes)}
        found = leaves(tree if len(one.recipes) > 1 else tree["0"])
        facts.append({key: value for key, value in found.items() if key in keys})
    return telling_labels(facts)


def _by_paths(groups: Sequence[Sequence[Tried]]) -> list[str]:
    return [str(group[0].folder) for group in groups]


NAMES: dict[str, Callable[[Sequence[Sequence[Tried]]], list[str]]] = {
    "runs": _by_runs,
    "recipes": _by_recipes,
    "keys": _by_keys,
}


def row_names(groups: Sequence[Sequence[Tried]], by: str | None = None) -> list[str]:
    """What to call the rows: by their runs, their recipes, or the keys in which these differ.

    The first of these that tells all rows apart, or the one that is asked for; or else by their paths.
    """
    for way in NAMES.values() if by is None else [NAMES[by]]:
        names = way(groups)
        if all(names) and len(set(names)) == len(names):
            return names
    return _by_paths(groups)
