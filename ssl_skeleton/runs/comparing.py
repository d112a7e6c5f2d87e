"""Runs side by side: which differ in their seed alone, and how far their scores are from one of them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path

from ssl_skeleton.config import leaves
from ssl_skeleton.data.store import meta_sum, open_store
from ssl_skeleton.errors import UserError, nearest
from ssl_skeleton.evaluation.comparison.bootstrap import DRAWS
from ssl_skeleton.evaluation.comparison.comparable import (
    Line,
    Place,
    column_names,
    fill,
    merged,
    places_of,
)
from ssl_skeleton.evaluation.comparison.labelling import telling_labels
from ssl_skeleton.evaluation.comparison.result_files import Result, read_results
from ssl_skeleton.evaluation.comparison.significance import Judged, judged
from ssl_skeleton.evaluation.comparison.tables import LEVEL, MARK, Column, Row, Table
from ssl_skeleton.evaluation.results import COLUMNS
from ssl_skeleton.evaluation.scores import Labels
from ssl_skeleton.recipe import differing_keys
from ssl_skeleton.runs.run import Run

_LONGEST = 48  # characters of a label that tells differences; else the runs' names do


@dataclass(frozen=True)
class Wanted:
    """Which results are compared: by default all, each by its first score."""

    evaluators: Sequence[str] = ()
    scores: Sequence[str] = ()
    stores: Sequence[str] = ()
    splits: Sequence[str] = ()


@dataclass(frozen=True)
class Tried:
    """A run and its results."""

    run: Run
    results: Sequence[Result]

    @property
    def name(self) -> str:
        """What its folder is called."""
        return self.run.folder.absolute().name

    @property
    def seed(self) -> int:
        """The seed of its recipe."""
        return self.run.recipe.seed

    @property
    def epoch(self) -> int:
        """The last epoch of what it evaluates."""
        return self.run.evaluated_stages[-1].training.epochs


def comparison_table(
    folders: Sequence[Path],
    wanted: Wanted,
    *,
    against: Path | None = None,
    baselines: bool = True,
    named: bool = False,
) -> Table:
    """A row for the runs of every recipe, and with `baselines` for each of these; differences to a run's row.

    That is the row of the run `against`, or the first one. Rows are called after what differs between their
    recipes, where that is short, or with `named` after their runs. UserError for whatever cannot be compared.
    """
    runs = _chosen(_read(folders), wanted)
    for one in runs:
        _check_age(one)
    groups = _grouped(runs)
    reference = _row_of(against, groups)
    lines, below = [], []
    for group, name in zip(groups, _row_names(groups, named=named), strict=True):
        line = Line(name, [one.name for one in group], {one.seed for one in group}, group[0].epoch)
        beside = fill(line, [result for one in group for result in one.results])
        lines.append(line)
        below += beside if baselines else []
    lines += merged(below)
    results = [result for one in runs for result in one.results]
    places = places_of(results, wanted.scores)
    columns = [Column(name, _facts(place)) for place, name in zip(places, column_names(places), strict=True)]
    judgements = [judged(place, lines, reference, _labels(place, results)) for place in places]
    rows = [
        Row(line.name, cells, line.runs, sorted(line.seeds), line.epoch, line.baseline)
        for line, cells in zip(lines, zip(*(one.cells for one in judgements), strict=True), strict=True)
    ]
    table = Table(_title(places), columns, rows, lines[reference].name)
    return replace(table, notes=[*_notes(table, runs), *_silent(columns, judgements)])


def _read(folders: Sequence[Path]) -> list[Tried]:
    """The runs in these folders; UserError where one has no results."""
    runs: dict[Path, Tried] = {}
    for folder in folders:
        if folder.resolve() in runs:
            raise UserError(f"{folder}: stands twice; name every run once")
        run, results = Run.open(folder), read_results(folder)
        if not results:
            raise UserError(
                f"{folder}: has no results; make some with: python -m ssl_skeleton.linear --run {folder}"
            )
        runs[folder.resolve()] = Tried(run, results)
    return list(runs.values())


def _chosen(runs: Sequence[Tried], wanted: Wanted) -> list[Tried]:
    """The runs with the wanted results alone; UserError for a wish that nothing fulfils."""
    left = [result for one in runs for result in one.results]
    for what in ("evaluator", "store", "split"):
        names: Sequence[str] = getattr(wanted, f"{what}s")
        there = {getattr(result, what) for result in left}
        for name in names:
            if name not in there:
                raise UserError(f"--{what}: there is no such result of '{name}'; {nearest(name, there)}")
        left = [result for result in left if not names or getattr(result, what) in names]
    there = {name for result in left for name in result.scores}
    for name in wanted.scores:
        if name not in there:
            raise UserError(f"--score: no result has '{name}'; {nearest(name, there)}")
    if not there:
        raise UserError(f"{left[0].path}: has no score that stands in a table; choose another --evaluator")
    return [Tried(one.run, [result for result in one.results if result in left]) for one in runs]


def _check_age(one: Tried) -> None:
    """Raise UserError for a result of what the run was before: of another seed, or another last epoch."""
    for result in one.results:
        if result.seed != one.seed:
            raise UserError(
                f"{result.path}: is of seed {result.seed}, but the recipe's is {one.seed}; evaluate again"
            )
        if result.epoch not in (0, one.epoch):  # 0 is from scratch
            raise UserError(f"{result.path}: is of epoch {result.epoch} of {one.epoch}; evaluate again")


def _grouped(runs: Sequence[Tried]) -> list[list[Tried]]:
    """The runs that differ in nothing but their seed together; UserError when two do not even in that."""
    groups: list[list[Tried]] = []
    for one in runs:
        group = next((group for group in groups if not _differing(group[0], one)), None)
        if group is None:
            groups.append([one])
            continue
        for other in group:
            if other.seed == one.seed:
                same = f"the same recipe and seed as {other.run.folder}"
                raise UserError(f"{one.run.folder}: has {same}; name one of the two")
        group.append(one)
    return groups


def _differing(one: Tried, other: Tried) -> list[str]:
    """The keys that make two runs more than two seeds of one.

    How runs are evaluated is none: every result tells its own protocol.
    """
    keys = differing_keys(one.run.recipe, other.run.recipe)
    return [key for key in keys if key not in ("name", "seed") and not key.startswith("evaluation.")]


def _row_of(against: Path | None, groups: Sequence[Sequence[Tried]]) -> int:
    """The place of the row with that run."""
    if against is None:
        return 0
    for number, group in enumerate(groups):
        if any(one.run.folder.resolve() == against.resolve() for one in group):
            return number
    raise UserError(f"--against: {against} is none of the runs; name it among them too")


def _row_names(groups: Sequence[Sequence[Tried]], *, named: bool) -> list[str]:
    """What tells rows apart: what differs in their recipes, if that is short, or the names of their runs."""
    names = [_common_name([one.name for one in group]) for group in groups]
    if len(set(names)) < len(names):
        names = [str(group[0].run.folder) for group in groups]
    if named:
        return names
    first = groups[0][0]
    keys = {key for group in groups[1:] for key in _differing(first, group[0])}
    trees = [leaves(group[0].run.recipe.to_tree()) for group in groups]
    labels = telling_labels([{key: tree[key] for key in tree if key in keys} for tree in trees])
    short = all(0 < len(label) <= _LONGEST for label in labels)
    return labels if short and len(set(labels)) == len(labels) else names


def _common_name(names: Sequence[str]) -> str:
    """`crrl` for crrl_seed0 and crrl_seed1; a single name stays as it is."""
    if len(names) == 1:
        return names[0]
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    common = "".join(letters[0] for letters in alike)
    return re.sub(r"[_-]*(seed)?[_-]*\d*$", "", common) or names[0]


def _labels(place: Place, results: Sequence[Result]) -> Labels | str:
    """The labels (N,) of the scored clips from the store that was evaluated on; or why they cannot be had."""
    noted = [one for one in results if (one.evaluator, one.store_sum) == (place.evaluator, place.content)]
    if not noted:
        return "older results do not note what the store held; evaluate again"
    paths = dict.fromkeys(result.store_path for result in noted)
    for path in paths:
        try:
            store = open_store(Path(path))
            if meta_sum(store.meta.to_tree()) == place.content:
                labels: Labels = store.labels[getattr(store.split(place.split), noted[0].part)]
                return labels
        except UserError:  # moved, or prepared anew
            continue
    return f"the labels are needed, but {', '.join(paths)} is not there as it was evaluated on"


def _facts(place: Place) -> dict[str, str]:
    """What a column is of, for programs."""
    facts: dict[str, str] = asdict(place) | {"score": COLUMNS[place.score].format(place.key)}
    del facts["key"]
    return facts


def _title(places: Sequence[Place]) -> str:
    where = {(place.store, place.split) for place in places}
    on = ", on {}, split {}".format(*min(where)) if len(where) == 1 else ""
    return f"Scores in % after the last epoch, mean ± standard deviation of a sample over seeds{on}"


def _notes(table: Table, runs: Sequence[Tried]) -> Iterator[str]:
    """What a reader has to know beside the numbers."""
    cells = [cell for row in table.rows for cell in row.cells if cell]
    if any(cell.difference for cell in cells):
        yield (
            f"{MARK} differs from {table.reference}, p < {LEVEL}: paired bootstrap over test clips and over "
            f"seeds where there are several, {DRAWS:,} draws; p are corrected for the rows of their column "
            "(Holm), 95 % intervals are not"
        )
        if any(len(cell.values) == 1 for cell in cells):
            yield "of one seed, a difference is between these very encoders; other seeds may differ otherwise"
    trained = [row for row in table.rows if not row.baseline]
    counts = [len(row.seeds) for row in trained]
    if max(counts) > 1:
        numbers = "" if min(counts) == max(counts) else f"; rows have {min(counts)} to {max(counts)}"
        yield f"over few seeds, a deviation is rough, and p too small where seeds differ much{numbers}"
    for number, column in enumerate(table.columns):
        missing = [row.name for row in trained if row.cells[number] is None]
        if missing:
            yield f"{column.name}: no such result of {', '.join(missing)}; other protocols stand apart"
    yield from _of_results(runs)


def _of_results(runs: Sequence[Tried]) -> Iterator[str]:
    results = [result for one in runs for result in one.results]
    repeats = {result.evaluator: len(result.predicted) for result in results if len(result.predicted) > 1}
    for evaluator, number in repeats.items():
        yield f"{evaluator}: every seed counts with its mean over {number} repeats"
    if any(result.evaluator.startswith("finetune") for result in results):
        yield "beside finetune, raw coordinates get a linear probe, and the untrained encoder learns too"


def _silent(columns: Sequence[Column], judgements: Sequence[Judged]) -> Iterator[str]:
    """Why there is no p, once for all columns of which that is true."""
    found: dict[str, list[str]] = {}
    for column, one in zip(columns, judgements, strict=True):
        if one.reason:
            found.setdefault(one.reason, []).append(column.name)
    for reason, names in found.items():
        yield f"no p for {'; '.join(names)}: {reason}"
