import re

from hypothesis import given
from hypothesis import strategies as st

from ssl_skeleton.evaluation.comparison.grids import Grid, markdown_grid, text_grid

words = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=14)
heads = st.lists(words, min_size=1, max_size=5).map(" ".join)


@st.composite
def grids(draw) -> Grid:
    """Cells that are known again wherever they stand: each has the numbers of its row and column."""
    columns, rows = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    wide = [draw(st.integers(1, 40)) for _ in range(columns)]
    cells = [
        [f"r{row}", *(f"{row}:{column}".rjust(wide[column], "x") for column in range(columns))]
        for row in range(rows)
    ]
    return Grid(["", *(draw(heads) for _ in range(columns))], cells, draw(st.integers(0, rows)))


@given(grids())
def test_a_grid_fits_a_terminal_and_loses_nothing(grid):
    shown = text_grid(grid)
    assert all(len(line) <= 100 for line in shown.splitlines())
    found = shown.split()
    for row in grid.rows:
        assert all(found.count(cell) == 1 for cell in row[1:])
        assert found.count(row[0]) >= 1
    told = [word for word in found if re.fullmatch("[a-z]+", word) and set(word) != {"x"}]
    assert sorted(told) == sorted(word for head in grid.head for word in head.split() if set(word) != {"x"})


@given(grids())
def test_what_fits_stays_on_one_line_a_row(grid):
    widths = [max(map(len, column)) for column in zip(grid.head, *grid.rows, strict=True)]
    fits = sum(widths) + 2 * (len(widths) - 1) <= 100
    blank = 0 < grid.gap < len(grid.rows)
    lines = text_grid(grid).splitlines()
    assert fits == (
        len(lines) == 1 + len(grid.rows) + blank and lines[0].split() == " ".join(grid.head).split()
    )


def test_wide_heads_are_broken_before_columns_are_set_apart():
    names = [
        "robustness area, missing",
        "robustness area, noise",
        "robustness area, rotation",
        "knn k=1, a store",
    ]
    grid = Grid(["", *names], [["crrl", *["50.0 ± 1.0"] * 4], ["raw coordinates", *["40.0"] * 4]])
    lines = text_grid(grid).splitlines()
    assert [line.split() for line in lines] == [
        ["robustness", "robustness", "robustness"],
        ["area,", "area,", "area,", "knn", "k=1,", "a"],
        ["missing", "noise", "rotation", "store"],
        ["crrl", *["50.0", "±", "1.0"] * 4],
        ["raw", "coordinates", *["40.0"] * 4],
    ]
    assert len({len(line) for line in lines[1:]}) == 1


def test_columns_that_have_no_place_follow_below():
    grid = Grid(["minus a", "linear", "knn"], [["b", "-" * 50, "+" * 50], ["raw", "1", "2"]], gap=1)
    lines = text_grid(grid).splitlines()
    assert [line.split() for line in lines] == [
        ["minus", "a", "linear"],
        ["b", "-" * 50],
        [],
        ["raw", "1"],
        [],
        ["minus", "a", "knn"],
        ["b", "+" * 50],
        [],
        ["raw", "2"],
    ]


def test_a_grid_alone_as_markdown():
    grid = Grid(["recipe", "top1"], [["crrl_nw", "50.0"]])
    assert markdown_grid(grid) == "| recipe | top1 |\n| --- | ---: |\n| crrl\\_nw | 50.0 |"
