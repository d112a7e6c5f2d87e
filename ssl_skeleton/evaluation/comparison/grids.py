"""Cells of text under a head, as text for a terminal, Markdown and LaTeX."""

import re
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 100  # of a terminal
_BETWEEN = "  "  # columns


@dataclass(frozen=True)
class Grid:
    """Cells as text under a head, the first of each row its name; a gap comes after so many rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    gap: int = 0


def text_grid(grid: Grid) -> str:
    """Columns side by side, aligned.

    Where that is wider than a terminal, heads are broken into lines; columns that still have no place follow
    below, beside the names again.
    """
    heads = [[one_line(head)] for head in grid.head]
    rows = [[one_line(cell) for cell in row] for row in grid.rows]
    width_c = _widths(heads, rows)
    if sum(width_c) + len(_BETWEEN) * (len(heads) - 1) > WIDTH:
        cells = _widths([[""] for _ in heads], rows)
        others = zip(heads[1:], cells[1:], strict=True)
        heads = [heads[0], *(_broken(head, width) for (head,), width in others)]
        width_c = _widths(heads, rows)
    blocks = (_aligned(heads, rows, width_c, columns, grid.gap) for columns in _side_by_side(width_c))
    return "\n\n".join(blocks)


def _widths(heads: Sequence[Sequence[str]], rows: Sequence[Sequence[str]]) -> list[int]:
    columns = zip(heads, zip(*rows, strict=True), strict=True) if rows else ((head, ()) for head in heads)
    return [max(map(_width, [*head, *cells])) for head, cells in columns]


def _broken(head: str, width: int) -> list[str]:
    """The head in lines as wide as its cells, or as its longest word."""
    words = head.split(" ")
    return textwrap.wrap(head, max(width, *map(len, words)), break_on_hyphens=False) or [""]


def _side_by_side(width_c: Sequence[int]) -> list[list[int]]:
    """The columns of each block: as many as there is room for beside the first one, and one at least."""
    blocks: list[list[int]] = []
    left = 0
    for column, width in enumerate(width_c[1:], start=1):
        if not blocks or width + len(_BETWEEN) > left:
            blocks.append([0])
            left = WIDTH - width_c[0]
        blocks[-1].append(column)
        left -= width + len(_BETWEEN)
    return blocks


def _aligned(
    heads: Sequence[Sequence[str]],
    rows: Sequence[Sequence[str]],
    width_c: Sequence[int],
    columns: Sequence[int],
    gap: int,
) -> str:
    """Some columns, the first one to the left and the others to the right; heads end at their last line."""
    height = max(len(heads[column]) for column in columns)
    lines = [
        [([""] * (height - len(head)) + list(head))[number] for head in heads] for number in range(height)
    ]
    shown = []
    for number, cells in enumerate([*lines, *rows]):
        padding = {column: " " * (width_c[column] - _width(cells[column])) for column in columns}
        texts = [padding[column] + cells[column] if column else cells[0] + padding[0] for column in columns]
        shown += [""] * (number > height and number == height + gap)
        shown.append(_BETWEEN.join(texts).rstrip())
    return "\n".join(shown)


def markdown_grid(grid: Grid) -> str:
    """A table of GitHub's Markdown, which knows no gaps."""
    lines = [[markdown(cell) for cell in cells] for cells in (grid.head, *grid.rows)]
    lines.insert(1, ["---"] + ["---:"] * (len(grid.head) - 1))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def latex_grid(grid: Grid) -> str:
    r"""A `tabular` with the rules of booktabs."""
    lines = [[latex(name), *map(_latex_number, cells)] for name, *cells in grid.rows]
    lines.insert(0, [latex(name) for name in grid.head])
    rows = [" & ".join(cells) + " \\\\" for cells in lines]
    if 0 < grid.gap < len(grid.rows):
        rows[grid.gap] += "\n\\midrule"
    columns = "l" + "r" * (len(grid.head) - 1)
    body = "\n".join([f"\\begin{{tabular}}{{{columns}}}", "\\toprule", rows[0], "\\midrule", *rows[1:]])
    return f"{body}\n\\bottomrule\n\\end{{tabular}}"


def one_line(text: str) -> str:
    """The text on one line, as names of folders, which strangers may have chosen, need not be."""
    breaking = ("Cc", "Cs", "Zl", "Zp")
    return "".join("?" if unicodedata.category(letter) in breaking else letter for letter in text)


def _width(text: str) -> int:
    """How many places of a terminal the text takes."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def markdown(text: str) -> str:
    """The text as Markdown shows it."""
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


def latex(text: str) -> str:
    """The text as LaTeX sets it."""
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))


def _latex_number(text: str) -> str:
    return re.sub(r"-(?=\d)", "$-$", latex(text))
