"""Runs side by side: which differ in their seed alone, and how far their scores are from one of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ssl_skeleton.data.store import meta_sum, open_store
from ssl_skeleton.errors import UserError, nearest
from ssl_skeleton.evaluation.comparison.comparable import (
    Line,
    Place,
    column_names,
    fill,
    merged,
    places_of,
)
from ssl_skeleton.evaluation.comparison.notes import notes
from ssl_skeleton.evaluation.comparison.result_files import Result
from ssl_skeleton.evaluation.comparison.significance import judged
from ssl_skeleton.evaluation.comparison.tables import Column, Row, Table
from ssl_skeleton.evaluation.results import COLUMNS
from ssl_skeleton.evaluation.scores import Labels
from ssl_skeleton.runs.tried import Tried, check_age, grouped, read_tried, row_names


@dataclass(frozen=True)
class Wanted:
    """Which results are compared: by default all, each by its first score."""

    evaluators: Sequence[str] = ()
    scores: Sequence[str] = ()
    stores: Sequence[str] = ()
    splits: Sequence[str] = ()


def comparison_table(
    folders: Sequence[Path],
    wanted: Wanted,
    *,
    against: Path | None = None,
    baselines: bool = True,
    names: str | None = None,
) -> Table:
    """A row for the runs of every recipe, and with `baselines` for each of these; differences to a run's row.

    That is the row of the run `against`, or the first one. Rows are called after `names` (`row_names`).
    UserError for whatever cannot be compared.
    """
    runs = _chosen(read_tried(folders), wanted)
    for one in runs:
        check_age(one)
    groups = grouped(runs)
    reference = _row_of(against, groups)
    lines, below = [], []
    for group, name in zip(groups, row_names(groups, names), strict=True):
        found = [result for one in group for result in one.results]
        epoch = max((result.epoch for result in found), default=0) or None  # 0 is from scratch
        line = Line(name, [one.name for one in group], {one.seed for one in group}, epoch)
        beside = fill(line, found)
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
    return replace(table, notes=notes(table, results, judgements))


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
    return [replace(one, results=[result for result in one.results if result in left]) for one in runs]


def _row_of(against: Path | None, groups: Sequence[Sequence[Tried]]) -> int:
    """The place of the row with that run."""
    if against is None:
        return 0
    for number, group in enumerate(groups):
        if any(one.folder.resolve() == against.resolve() for one in group):
            return number
    raise UserError(f"--against: {against} is none of the runs; name it among them too")


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
    return "Scores in %" + (" on {}, split {}".format(*min(where)) if len(where) == 1 else "")
