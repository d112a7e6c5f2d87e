"""Draw what an experiment's results.json holds: a bar a row, a dot a seed, and its baselines.

    python experiments/figures.py experiments/queue

It writes scores.png into the folder, and scores_2.png and so on where there are more stores or splits.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from run_seeds import read_results
from scoreboard import OWN, score_tables

from ssl_skeleton.cli import run_command
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.comparison.tables import Cell, Table, percent
from ssl_skeleton.figures.page import any_letters
from ssl_skeleton.files import write_atomically

# Of Okabe and Ito's palette, which every kind of colour vision tells apart; marks tell them apart without it.
_BAR, _SEED = "#9CC9E5", "#0072B2"
_MARKS = {"untrained": ("#D55E00", "D"), "raw": ("#000000", "x")}
_WIDTH, _ROW, _TEXT = 3.6, 0.3, 8  # inches of a panel and of a row, points


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, draw a picture of every table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="the experiment's folder")
    folder = parser.parse_args(arguments).experiment
    results = read_results(folder)
    if not results:
        raise UserError(f"{folder / 'results.json'}: holds nothing to draw; write it with run_seeds.py")
    tables = score_tables({row: list(by_seed.values()) for row, by_seed in results.items()})
    for number, table in enumerate(tables, 1):
        path = folder / (f"scores_{number}.png" if number > 1 else "scores.png")
        with any_letters():
            write_atomically(path, FigureCanvasAgg(draw_scores(table)).print_png)
        print(path)


def draw_scores(table: Table) -> Figure:
    """A panel an evaluator side by side, a bar a row, the first one on top; bars begin at zero.

    The figure shows the numbers of the table: means as bars, every seed as a dot, the means of baselines as
    marks, all in %.
    """
    panels = [place for place, column in enumerate(table.columns) if column.facts["of"] == OWN]
    size = (1.2 + _WIDTH * len(panels), 1.2 + _ROW * len(table.rows))
    figure = Figure(figsize=size, dpi=200, layout="constrained")
    figure.suptitle(table.title, fontsize=_TEXT, parse_math=False)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, place in zip(all_axes, panels, strict=True):
        _draw_panel(axes, table, place)
    names = [row.name.replace("_", " ") for row in table.rows]
    all_axes[0].set_yticks(range(len(names)), names, fontsize=_TEXT, parse_math=False)
    all_axes[0].invert_yaxis()
    drawn = [pair for axes in all_axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    handles = {label: handle for handle, label in drawn}
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=4,
        fontsize=_TEXT,
        frameon=False,
    )
    return figure


def _draw_panel(axes: Axes, table: Table, place: int) -> None:
    column = table.columns[place]
    for row, line in enumerate(table.rows):
        beside = {
            other.facts["of"]: cell
            for other, cell in zip(table.columns, line.cells, strict=True)
            if other.facts["evaluator"] == column.facts["evaluator"] and cell is not None
        }
        if OWN in beside:
            _draw_row(axes, row, beside)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"{column.name} (%)", fontsize=_TEXT, parse_math=False)
    axes.tick_params(labelsize=_TEXT)
    axes.grid(axis="x", alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_row(axes: Axes, row: int, beside: dict[str, Cell]) -> None:
    own = beside[OWN]
    axes.barh(row, 100 * own.mean, color=_BAR, height=0.7, label="mean over seeds")
    seeds = [100 * value for value in own.values]
    axes.plot(seeds, [row] * len(seeds), "o", color=_SEED, markersize=3.5, label="one seed")
    for of, (colour, mark) in _MARKS.items():
        if of in beside:
            mean = 100 * beside[of].mean
            axes.plot(mean, row, mark, color=colour, markersize=4.5, markerfacecolor="none", label=of)
    axes.text(2, row, percent(own), va="center", fontsize=_TEXT - 1)


if __name__ == "__main__":
    sys.exit(run_command(main))
