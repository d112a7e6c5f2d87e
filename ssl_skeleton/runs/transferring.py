"""Transfer: a run probed on stores that it did not learn from, seen with the joints of its own body."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ssl_skeleton.data.store import EVERYTHING, open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.results import ROWS, unseen_line
from ssl_skeleton.runs.probing import check_probe, check_probing, evaluate, on_store
from ssl_skeleton.runs.run import Run, Tell
from ssl_skeleton.skeleton.layout import Layout
from ssl_skeleton.skeleton.remap import remap_matrix


def own_runs(folder: Path, overrides: Sequence[str], probes: Sequence[str], tell: Tell) -> list[Run]:
    """The run on each store that it learned from and can be probed on; `tell` gets a line on the others."""
    run, found = Run.open(folder, overrides), []
    for store, split in zip(run.recipe.data.stores, run.recipe.data.splits, strict=True):
        try:
            found.append(_probed(run, Path(store), split, probes))
        except UserError as error:
            tell(f"left out: {error}")
    return found


def target_runs(
    folder: Path, targets: Sequence[str], overrides: Sequence[str], probes: Sequence[str]
) -> list[Run]:
    """The run on each of `targets`, which read STORE or STORE:SPLIT.

    Without a split, a store has that of the run's own name, or the only one that it has. UserError when a
    target cannot be probed: all are looked at before anything is computed.
    """
    run, found = Run.open(folder, overrides), []
    for target in targets:
        path, colon, split = target.rpartition(":")
        if not colon or Path(target).exists():
            path, split = target, _split_of(Path(target), run.recipe.data.splits)
        found.append(_probed(run, Path(path), split, probes))
    return found


def transfer(
    runs: Sequence[Run], probes: Sequence[str], tell: Tell = lambda line: None
) -> list[dict[str, dict[str, Any]]]:
    """The result of every probe of each run; they are written as the commands of the probes write them.

    `tell` gets a line on where each result lies.
    """
    results = []
    for run in runs:
        fresh = replace(run)  # the frames of one store alone are in memory
        results.append({probe: evaluate(fresh, probe, tell) for probe in probes})
    return results


def transfer_table(results: Sequence[Mapping[str, Mapping[str, Any]]], own: int) -> str:
    """All results as text: top-1 accuracies, a block a probe, a row a store; the first ones are its `own`."""
    places = _places([next(iter(result.values())) for result in results], own)
    lines = []
    for probe, first in results[0].items():
        found = [result[probe] for result in results]
        names = ["trained", *first["baselines"]]
        columns = [ROWS[name].format(streams="+".join(first["streams"])) for name in names]
        k = f", k={next(iter(first['k']))}" if "k" in first else ""
        title = f"{first['evaluator']}{k}, top-1 in %, with 95 % intervals"
        width = max(map(len, (title, *places)))
        rows = [columns]
        for scores in found:
            rows.append([_cell(({"trained": scores} | scores["baselines"])[name]) for name in names])
        wide = [max(map(len, column)) + 3 for column in zip(*rows, strict=True)]
        for place, row in zip((title, *places), rows, strict=True):
            cells = [f"{cell:>{size}}" for cell, size in zip(row, wide, strict=True)]
            lines.append(f"{place:<{width}}" + "".join(cells))
        lines.append("")
    return "\n".join(lines[:-1])


def _cell(scores: Mapping[str, Any]) -> str:
    """A top-1 accuracy in its interval."""
    low, high = scores["interval"]["top1"]
    return f"{100 * scores['top1']:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def unseen_lines(runs: Sequence[Run], results: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[str]:
    """A line on each store whose test clips show classes that none of its training clips does."""
    return [
        f"{run.store.path}, split {run.splits[0].name}: {line}"
        for run, result in zip(runs, results, strict=True)
        for line in unseen_line(result.get("linear", {}), run.store.meta.classes)
    ]


def body_line(run: Run) -> str:
    """How the run sees the bodies of its store, in a line."""
    return f"{run.store.path}, split {run.splits[0].name}: {mapped(run.store.layout, run.layout)}"


def mapped(source: Layout, target: Layout) -> str:
    """Which joints of `source` make those of `target`, in words."""
    if source == target:
        return f"{target.name} as it is"
    moved = []
    for joint, row in zip(target.joints, remap_matrix(source, target), strict=True):
        places = [source.joints[place] for place in np.flatnonzero(row)]
        if places != [joint]:
            moved.append(f"{joint} from {' and '.join(places)}")
    kept = len(target.joints) - len(moved)
    names = f"{source.name} seen as {target.name}, {kept} of {len(target.joints)} joints by their names"
    return "; ".join([names, *([", ".join(moved)] if moved else [])])


def _split_of(store: Path, own: Sequence[str]) -> str:
    """The split of a store that goes without saying."""
    names = [name for name in open_store(store).split_names if name != EVERYTHING] or [EVERYTHING]
    known = [name for name in dict.fromkeys(own) if name in names and name != EVERYTHING]
    if len(known or names) > 1:
        raise UserError(f"{store}: say which split with {store}:SPLIT; it has {', '.join(names)}")
    return (known or names)[0]


def _probed(run: Run, store: Path, split: str, probes: Sequence[str]) -> Run:
    """The run on a store; UserError when one of the probes is not possible there."""
    run = on_store(run, store, split)
    check_probing(run)
    try:
        for probe in probes:
            check_probe(run, probe)
    except UserError as error:
        raise UserError(f"{store}, split {split}: {error}") from None
    return run


def _places(results: Sequence[Mapping[str, Any]], own: int) -> list[str]:
    """What to call each store and split: by its name, or by its path where two have the same name."""
    paths: dict[str, set[str]] = {}
    for result in results:
        paths.setdefault(result["store"], set()).add(result["store_path"])
    places = []
    for number, result in enumerate(results):
        store = result["store"] if len(paths[result["store"]]) == 1 else result["store_path"]
        places.append(f"{store}, {result['split']}" + (" (its own)" if number < own else ""))
    return places
