"""Curves of accuracy, of the representation and its baselines, as a picture that can be printed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ssl_skeleton.figures.page import any_letters
from ssl_skeleton.files import write_atomically

# Of Okabe and Ito's palette, which every kind of colour vision tells apart; dashes and marks tell them apart
# without any colour.
_STYLES = (
    ("#0072B2", "-", "o"),
    ("#D55E00", "--", "s"),
    ("#CC79A7", "-.", "D"),
    ("#009E73", ":", "^"),
    ("#E69F00", (0, (5, 1, 1, 1, 1, 1)), "v"),
    ("#000000", (0, (1, 3)), "x"),
)
MOST_LINES = len(_STYLES)
_WIDTH, _HEIGHT = 3.4, 2.4  # of a panel in inches: two fill a page, one a column
_TEXT = 8  # points


@dataclass(frozen=True)
class Line:
    """Accuracies and the bounds of their 95 % intervals, as shares, at each level."""

    name: str
    top1: Sequence[float]
    interval: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Panel:
    """What is drawn over one axis: its name with the unit, the levels, and lines that share them."""

    axis: str
    levels: Sequence[float]
    lines: Sequence[Line]


def draw_curves(title: str, panels: Sequence[Panel]) -> Figure:
    """A figure with two panels side by side, row after row, whose lines are in the same order in all of them.

    Accuracies are in %, from 0 to 100 in every panel, so that panels and figures can be compared.
    """
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(columns * _WIDTH, rows * _HEIGHT + 0.6), dpi=200, layout="constrained")
    figure.suptitle(title, fontsize=_TEXT, parse_math=False)
    for place, panel in enumerate(panels):
        _draw_panel(figure.add_subplot(rows, columns, place + 1), panel)
    names = [line.name for line in panels[0].lines]
    handles, _ = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=_TEXT, frameon=False)
    return figure


def save_curves(title: str, panels: Sequence[Panel], path: Path) -> None:
    """Draw them into a PNG file."""
    with any_letters():
        write_atomically(path, FigureCanvasAgg(draw_curves(title, panels)).print_png)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    for line, (colour, dashes, mark) in zip(panel.lines, _STYLES, strict=False):
        low, high = ([100 * bound for bound in bounds] for bounds in zip(*line.interval, strict=True))
        axes.fill_between(panel.levels, low, high, color=colour, alpha=0.15, linewidth=0)
        if len(panel.levels) == 1:  # where a band has no width
            axes.vlines(panel.levels, low, high, color=colour, alpha=0.5, linewidth=1)
        axes.plot(
            panel.levels,
            [100 * share for share in line.top1],
            color=colour,
            linestyle=dashes,
            marker=mark,
            markersize=3.5,
            linewidth=1.3,
            label=line.name,
        )
    axes.set_xticks(panel.levels)
    axes.set_ylim(0, 100)
    axes.set_xlabel(panel.axis, fontsize=_TEXT)
    axes.set_ylabel("top-1 accuracy (%)", fontsize=_TEXT)
    axes.tick_params(labelsize=_TEXT)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.spines[["top", "right"]].set_visible(False)
