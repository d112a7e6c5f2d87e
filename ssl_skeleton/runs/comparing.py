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
    settings,
)
from ssl_skeleton.evaluation.comparison.notes import notes
from ssl_skeleton.evaluation.comparison.result_files import Result
from ssl_skeleton.evaluation.comparison.significance import judged
from ssl_skeleton.evaluation.comparison.tables import Column, Row, Table
from ssl_skeleton.evaluation.results import COLUMNS, overridden
from ssl_skeleton.evaluation.scores import Labels
from ssl_skeleton.recipe import EvaluationConfig
from ssl_skeleton.runs.tried import Tried, check_age, grouped, read_tried, row_names

_SUM = 12  # letters of what a store held, for programs


@dataclass(frozen=True)
class Wanted:
    """Which results are compared: by default all that every row has, each by its first score.

    `everything` takes what some rows lack too, as evaluators do that are named.
    """

    evaluators: Sequence[str] = ()
    scores: Sequence[str] = ()
    stores: Sequence[str] = ()
    splits: Sequence[str] = ()
    everything: bool = False


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
    tried = read_tried(folders)
    runs = _chosen(tried, wanted)
    for one in runs:
        check_age(one)
    groups = grouped(runs)
    reference = _row_of(against, groups)
    lines = _lines(groups, row_names(groups, names), baselines=baselines)
    results = [result for one in runs for result in one.results]
    found_places = places_of(results, wanted.scores)
    places = found_places if wanted.everything or wanted.evaluators else _shared(found_places, lines)
    lines = [line for line in lines if not line.baseline or line.scored.keys() & set(places)]
    heads = column_names(places, _unusual)
    columns = [Column(name, _facts(place)) for place, name in zip(places, heads, strict=True)]
    judgements = [judged(place, lines, reference, _labels(place, results)) for place in places]
    rows = [
        Row(line.name, cells, line.runs, sorted(line.seeds), line.epoch, line.baseline)
        for line, cells in zip(lines, zip(*(one.cells for one in judgements), strict=True), strict=True)
    ]
    table = Table(_title(places), columns, rows, lines[reference].name)
    shown = {place.evaluator for place in places}
    found_notes = notes(table, [result for result in results if result.evaluator in shown], judgements)
    more = [
        *_left_out(len(found_places) - len(places)),
        *_of_epochs(groups, lines),
        *_relatives(tried, wanted),
    ]
    return replace(table, notes=[*found_notes, *more])


def _lines(groups: Sequence[Sequence[Tried]], names: Sequence[str], *, baselines: bool) -> list[Line]:
    """A line for each group of runs, in their order, and below them their baselines."""
    lines, below = [], []
    for group, name in zip(groups, names, strict=True):
        found = [result for one in group for result in one.results]
        pretrained = any(result.epoch for result in found)  # 0 is from scratch
        epochs = group[0].epochs  # of fusions several
        epoch = epochs[0] if pretrained and len(epochs) == 1 else None
        line = Line(name, [one.name for one in group], {one.seed for one in group}, epoch)
        beside = fill(line, found)
        lines.append(line)
        below += beside if baselines else []
    return lines + merged(below)


def _shared(places: Sequence[Place], lines: Sequence[Line]) -> Sequence[Place]:
    """Those that all seeds of all rows have, or else all rows; all of them where there is none."""
    rows = [line for line in lines if not line.baseline]
    everywhere = [place for place in places if all(place in line.scored for line in rows)]
    whole = [
        place for place in everywhere if all(len(line.scored[place]) == len(line.seeds) for line in rows)
    ]
    return whole or everywhere or places


def _unusual(place: Place) -> set[str]:
    """The settings of a column that are not those by default, without what its evaluator's name tells.

    Nothing is known of the settings of another version.
    """
    kind = place.evaluator.partition("_")[0]
    own, beside = settings(place)
    found, probes = set[str](), set[str]()
    for sections in beside:
        try:
            config = EvaluationConfig.from_tree({kind: own, **sections}, place.evaluator)
        except UserError:
            return found
        found |= overridden(EvaluationConfig(), config, place.evaluator).keys()
        probes.add(config.linear.name)
    return found | ({"linear.name"} if len(probes) > 1 else set())


def _left_out(columns: int) -> list[str]:
    if not columns:
        return []
    many = f"{columns} other columns are" if columns > 1 else "1 other column is"
    return [f"{many} of results that not all rows, or not all of their seeds, have; --all shows them"]


def _of_epochs(groups: Sequence[Sequence[Tried]], lines: Sequence[Line]) -> list[str]:
    """Of fusions of runs that were trained for different numbers of epochs, these."""
    each = [(line.name, group[0].epochs) for line, group in zip(lines, groups, strict=False)]
    return [
        f"{name}: fuses runs of {' and '.join(map(str, epochs))} epochs"
        for name, epochs in each
        if len(epochs) > 1
    ]


def _relatives(runs: Sequence[Tried], wanted: Wanted) -> list[str]:
    """Of runs without any result of the evaluators that are named, those of the same kind that they have."""
    kinds = {name.partition("_")[0] for name in wanted.evaluators}
    missed: dict[str, list[str]] = {}
    for one in runs:
        names = dict.fromkeys(result.evaluator for result in one.results)
        if not names.keys() & set(wanted.evaluators):
            missed[one.name] = [name for name in names if name.partition("_")[0] in kinds]
    wish = " ".join(wanted.evaluators)
    return [
        f"{name}: has no {' or '.join(wanted.evaluators)}, but: --evaluator {wish} {' '.join(others)}"
        for name, others in missed.items()
        if others
    ]


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
    facts["content"] = place.content if " " in place.content else place.content[:_SUM]
    del facts["key"]
    return facts


def _title(places: Sequence[Place]) -> str:
    where = {(place.store, place.split) for place in places}
    return "Scores in %" + (" on {}, split {}".format(*min(where)) if len(where) == 1 else "")
