"""What a reader has to know beside the numbers of a table, each thing said once."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

from ssl_skeleton.evaluation.comparison.bootstrap import DRAWS
from ssl_skeleton.evaluation.comparison.result_files import Result
from ssl_skeleton.evaluation.comparison.significance import Judged
from ssl_skeleton.evaluation.comparison.tables import LEVEL, MARK, Row, Table

Value = TypeVar("Value")


def notes(table: Table, results: Sequence[Result], judgements: Sequence[Judged]) -> list[str]:
    """The notes of a table whose columns were judged so."""
    trained = [row for row in table.rows if not row.baseline]
    return [
        *_of_differences(table),
        *_of_seeds(table, trained),
        *_of_results(results, trained),
        *_missing(table, trained),
        *_silent(table, judgements),
    ]


def _of_differences(table: Table) -> Iterator[str]:
    columns = [
        [cell for cell in column if cell] for column in zip(*(row.cells for row in table.rows), strict=True)
    ]
    judged = [column for column in columns if any(cell.difference for cell in column)]
    if not judged:
        return
    yield (
        f"{MARK} differs from {table.reference}, p < {LEVEL}: paired bootstrap over test clips and over "
        f"seeds where there are several, {DRAWS:,} draws; p are corrected for the rows of their column "
        "(Holm), 95 % intervals are not"
    )


def _of_seeds(table: Table, trained: Sequence[Row]) -> Iterator[str]:
    """What one seed tells, and what few do; by what a score shows it, where there is both."""
    counts = [len(row.seeds) for row in trained]
    numbers = "" if min(counts) == max(counts) else f"; rows have {min(counts)} to {max(counts)}"
    seeds = {len(cell.values) for row in trained for cell in row.cells if cell is not None}
    one, few = 1 in seeds, max(seeds) > 1
    compared = any(cell and cell.difference for row in table.rows for cell in row.cells)
    if one and compared:
        where = " (a score without ±)" if few else ""
        what = "a difference is between these very encoders; other seeds may differ otherwise"
        yield f"of one seed{where}, {what}"
    if few:
        where = " (a score with ±)" if one else ""
        yield f"over few seeds{where}, a deviation is rough, and p too small where seeds differ much{numbers}"


def _of_results(results: Sequence[Result], trained: Sequence[Row]) -> Iterator[str]:
    repeats = {result.evaluator: len(result.predicted) for result in results if len(result.predicted) > 1}
    for number, evaluators in _by_value(repeats).items():
        yield f"{', '.join(evaluators)}: every seed counts with its mean over {number} repeats"
    evaluators = list(dict.fromkeys(result.evaluator for result in results))
    if any(evaluator.startswith("finetune") for evaluator in evaluators):
        yield "beside finetune, raw coordinates get a linear probe, and the untrained encoder learns too"
    scratch = list(dict.fromkeys(result.evaluator for result in results if not result.epoch))
    if scratch and any(row.epoch for row in trained):
        yield f"{', '.join(scratch)}: begins at random, after no epoch of pretraining"


def _missing(table: Table, trained: Sequence[Row]) -> Iterator[str]:
    missing = {
        column.name: ", ".join(row.name for row in trained if row.cells[number] is None)
        for number, column in enumerate(table.columns)
    }
    found = {name: rows for name, rows in missing.items() if rows}
    others = "; results by other protocols or of other stores stand in columns of their own"
    for rows, names in _by_value(found).items():
        yield f"no such result of {rows}: {'; '.join(names)}{others}"
        others = ""


def _silent(table: Table, judgements: Sequence[Judged]) -> Iterator[str]:
    pairs = zip(table.columns, judgements, strict=True)
    reasons = {column.name: one.reason for column, one in pairs if one.reason}
    for reason, names in _by_value(reasons).items():
        yield f"no p for {'; '.join(names)}: {reason}"


def _by_value(found: Mapping[str, Value]) -> dict[Value, list[str]]:
    """The names that have each value."""
    values: dict[Value, list[str]] = {}
    for name, value in found.items():
        values.setdefault(value, []).append(name)
    return values
