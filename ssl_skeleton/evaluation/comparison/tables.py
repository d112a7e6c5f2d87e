"""A table of scores over runs and seeds, and what it looks like as text, Markdown, LaTeX and CSV."""

import csv
import io
import re
import statistics
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ssl_skeleton.evaluation.comparison.bootstrap import Difference

LEVEL, MARK = 0.05, "*"  # a smaller p is marked so
_NOTHING = "-"
_WIDTH = 110


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


@dataclass(frozen=True)
class Grid:
    """Cells as text under a head, the first of each row its name; a gap comes after so many rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    gap: int = 0


def percent(cell: Cell) -> str:
    """A mean in %, with the deviation where there are several seeds."""
    spread = "" if cell.deviation is None else f" ± {100 * cell.deviation:.1f}"
    return f"{100 * cell.mean:.1f}{spread}"


def as_text(table: Table) -> str:
    """For a terminal: columns side by side, aligned."""
    blocks = [one_line(table.title), *map(_text_grid, _grids(table))]
    notes = [textwrap.fill(one_line(note), _WIDTH, subsequent_indent="  ") for note in table.notes]
    return "\n\n".join([*blocks, "\n".join(notes)]).rstrip()


def as_markdown(table: Table) -> str:
    """For a README."""
    blocks = [_markdown(table.title), *map(markdown_grid, _grids(table))]
    return "\n\n".join([*blocks, "\n".join(f"- {_markdown(note)}" for note in table.notes)]).rstrip()


def as_latex(table: Table) -> str:
    r"""For a paper: a `table` that needs \usepackage{booktabs}."""
    tabulars = "\n\n\\medskip\n".join(map(_latex_grid, _grids(table)))
    notes = "".join(f"\n\n{{\\footnotesize {_latex(note)}\\par}}" for note in table.notes)
    head = f"\\begin{{table}}\n\\centering\n\\caption{{{_latex(table.title)}}}"
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


def markdown_grid(grid: Grid) -> str:
    """A table of GitHub's Markdown, which knows no gaps."""
    lines = [[_markdown(cell) for cell in cells] for cells in (grid.head, *grid.rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(grid.head) - 1))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _grids(table: Table) -> list[Grid]:
    """The scores, and below them the differences where there are some."""
    head = ["", "seeds", "epoch", *(column.name for column in table.columns)]
    rows = []
    for row in table.rows:
        epoch = "" if row.epoch is None else str(row.epoch)
        rows.append([row.name, str(len(row.seeds)), epoch, *(_score(row, cell) for cell in row.cells)])
    grids = [Grid(head, rows, _gap(table.rows))]
    compared = [row for row in table.rows if any(cell and cell.difference for cell in row.cells)]
    if compared:
        head = [f"minus {table.reference}", *(column.name for column in table.columns)]
        rows = [[row.name, *map(_difference, row.cells)] for row in compared]
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


def _text_grid(grid: Grid) -> str:
    lines = [[one_line(cell) for cell in cells] for cells in (grid.head, *grid.rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    shown = []
    for number, (name, *cells) in enumerate(lines):
        first = name + " " * (widths[0] - _width(name))
        rest = [" " * (width - _width(cell)) + cell for cell, width in zip(cells, widths[1:], strict=True)]
        shown += [""] * (number > 1 and number == grid.gap + 1)
        shown.append("  ".join([first, *rest]).rstrip())
    return "\n".join(shown)


def _latex_grid(grid: Grid) -> str:
    lines = [[_latex(name), *map(_latex_number, cells)] for name, *cells in grid.rows]
    lines.insert(0, [_latex(name) for name in grid.head])
    rows = [" & ".join(cells) + " \\\\" for cells in lines]
    if 0 < grid.gap < len(grid.rows):
        rows[grid.gap] += "\n\\midrule"
    columns = "l" + "r" * (len(grid.head) - 1)
    body = "\n".join([f"\\begin{{tabular}}{{{columns}}}", "\\toprule", rows[0], "\\midrule", *rows[1:]])
    return f"{body}\n\\bottomrule\n\\end{{tabular}}"


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


def one_line(text: str) -> str:
    """The text on one line, as names of folders, which strangers may have chosen, need not be."""
    breaking = ("Cc", "Cs", "Zl", "Zp")
    return "".join("?" if unicodedata.category(letter) in breaking else letter for letter in text)


def _width(text: str) -> int:
    """How many places of a terminal the text takes."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|~$#])", r"\\\1", one_line(text).replace("&", "&amp;"))


_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{letter: f"{{{letter}}}" for letter in "[]*"},  # which mean something behind the \\ of a row
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "±": "$\\pm$",
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))


def _latex_number(text: str) -> str:
    return re.sub(r"-(?=\d)", "$-$", _latex(text))
