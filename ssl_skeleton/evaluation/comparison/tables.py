"""A table of scores over runs and seeds, and what it looks like as text, Markdown, LaTeX and CSV."""

import csv
import io
import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ssl_skeleton.evaluation.comparison.bootstrap import Difference
from ssl_skeleton.evaluation.comparison.grids import (
    WIDTH,
    Grid,
    latex,
    latex_grid,
    markdown,
    markdown_grid,
    one_line,
    text_grid,
)

LEVEL, MARK = 0.05, "*"  # a smaller p is marked so
_NOTHING = "-"


@dataclass(frozen=True)
class Cell:
    """A score, a share for each seed, and how far it is from that of the reference.

    `adjusted_p` is the p of the difference when all rows of the column are looked at together.
    """

    values: tuple[float, ...]
    difference: Difference | None = None
    adjusted_p: float | None = None

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation of a sample; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Column:
    """What a column is called, and for the CSV what it is of."""

    name: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone, or a baseline of some runs; `epoch` is their last one."""

    name: str
    cells: Sequence[Cell | None]
    runs: Sequence[str]
    seeds: Sequence[int]
    epoch: int | None = None
    baseline: bool = False


@dataclass(frozen=True)
class Table:
    """Rows and columns of cells; differences are to the row that is called `reference`."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    reference: str = ""
    notes: Sequence[str] = ()


def percent(cell: Cell) -> str:
    """A mean in %, with the deviation where there are several seeds."""
    spread = "" if cell.deviation is None else f" ± {100 * cell.deviation:.1f}"
    return f"{100 * cell.mean:.1f}{spread}"


def as_text(table: Table) -> str:
    """For a terminal: columns side by side, aligned."""
    blocks = ["\n".join(map(_filled, _heading(table))), *map(text_grid, _grids(table))]
    return "\n\n".join([*blocks, "\n".join(map(_filled, table.notes))]).rstrip()


def as_markdown(table: Table) -> str:
    """For a README."""
    blocks = [markdown("; ".join(_heading(table))), *map(markdown_grid, _grids(table))]
    return "\n\n".join([*blocks, "\n".join(f"- {markdown(note)}" for note in table.notes)]).rstrip()


def as_latex(table: Table) -> str:
    r"""For a paper: a `table`, with a line on what its document needs."""
    tabulars = "\n\n\\medskip\n".join(map(latex_grid, _grids(table)))
    notes = "".join(f"\n\n{{\\footnotesize {latex(note)}\\par}}" for note in table.notes)
    caption = latex("; ".join(_heading(table)))
    head = f"% needs \\usepackage{{booktabs}}\n\\begin{{table}}\n\\centering\n\\caption{{{caption}}}"
    return f"{head}\n{tabulars}{notes}\n\\end{{table}}"


def as_csv(table: Table) -> str:
    """For programs: a line a cell, shares and not per cent, with all digits; empty where there is none."""
    lines = [_record(row, column, cell, table.reference) for row, column, cell in _cells(table)]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Table], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
}


def _filled(text: str) -> str:
    """The text in lines of a terminal."""
    return textwrap.fill(one_line(text), WIDTH, subsequent_indent="  ")


def _heading(table: Table) -> list[str]:
    """The title, and what is the same in every row, and so has no column."""
    seeds, epochs = _seeds(table), _epochs(table)
    many = f"{min(seeds)} seeds" if len(seeds) == 1 else "seeds"
    over = "one seed" if seeds == {1} else f"mean ± standard deviation of a sample over {many}"
    last = f" ({min(epochs)})" if len(epochs) == 1 else ""
    return [table.title, f"{over}, after the last epoch{last}" if epochs else over]


def _seeds(table: Table) -> set[int]:
    return {len(row.seeds) for row in table.rows}


def _epochs(table: Table) -> set[int]:
    """The last epochs of the rows; 0 is among them where a row has none beside others that have one."""
    epochs = {row.epoch or 0 for row in table.rows if not row.baseline}
    return set() if epochs == {0} else epochs


def _grids(table: Table) -> list[Grid]:
    """The scores, and below them the differences where there are some."""
    about = {
        "seeds": [str(len(row.seeds)) for row in table.rows] if len(_seeds(table)) > 1 else [],
        "epoch": [str(row.epoch or "") for row in table.rows] if len(_epochs(table)) > 1 else [],
    }
    named = {name: cells for name, cells in about.items() if cells}
    head = ["", *named, *(column.name for column in table.columns)]
    rows = [
        [row.name, *(cells[number] for cells in named.values()), *(_score(row, cell) for cell in row.cells)]
        for number, row in enumerate(table.rows)
    ]
    grids = [Grid(head, rows, _gap(table.rows))]
    compared = [row for row in table.rows if any(cell and cell.difference for cell in row.cells)]
    if compared:
        columns = [
            number
            for number in range(len(table.columns))
            if any((cell := row.cells[number]) and cell.difference for row in compared)
        ]
        head = [f"minus {table.reference}", *(table.columns[number].name for number in columns)]
        rows = [[row.name, *(_difference(row.cells[number]) for number in columns)] for row in compared]
        grids.append(Grid(head, rows, _gap(compared)))
    return grids


def _gap(rows: Sequence[Row]) -> int:
    """How many rows stand above the baselines."""
    return sum(not row.baseline for row in rows)


def _score(row: Row, cell: Cell | None) -> str:
    if cell is None:
        return _NOTHING
    mark = f" {MARK}" if cell.adjusted_p is not None and cell.adjusted_p < LEVEL else ""
    some = f" ({len(cell.values)} of {len(row.seeds)})" if len(cell.values) < len(row.seeds) else ""
    return f"{percent(cell)}{some}{mark}"


def _difference(cell: Cell | None) -> str:
    if cell is None or cell.difference is None or cell.adjusted_p is None:
        return _NOTHING
    points = (round(100 * share, 1) for share in _shares(cell.difference))
    mean, low, high = (f"{point or 0.0:+.1f}" for point in points)  # no -0.0
    p = f"p {cell.adjusted_p:.3f}" if cell.adjusted_p >= 0.001 else "p < 0.001"
    return f"{mean} [{low}, {high}], {p}"


def _shares(difference: Difference) -> tuple[float, float, float]:
    return difference.mean, difference.low, difference.high


def _cells(table: Table) -> list[tuple[Row, Column, Cell]]:
    pairs = [(row, zip(table.columns, row.cells, strict=True)) for row in table.rows]
    return [(row, column, cell) for row, cells in pairs for column, cell in cells if cell is not None]


def _record(row: Row, column: Column, cell: Cell, reference: str) -> dict[str, object]:
    """The line of a cell; what is there has all its digits, as repr gives them."""
    mean, low, high = _shares(cell.difference) if cell.difference else (None, None, None)
    line: dict[str, object] = {
        "row": row.name,
        "kind": "baseline" if row.baseline else "run",
        "runs": "; ".join(row.runs),
        "epoch": row.epoch,
        **column.facts,
        "seeds": len(cell.values),
        "mean": cell.mean,
        "std": cell.deviation,
        "reference": reference if cell.difference else None,
        "difference": mean,
        "low": low,
        "high": high,
        "p": cell.difference.p if cell.difference else None,
        "p_holm": cell.adjusted_p,
    }
    return {name: one_line(value) if isinstance(value, str) else value for name, value in line.items()}
