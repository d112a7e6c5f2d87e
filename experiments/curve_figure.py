"""Draw what `early` or `robustness` found of several runs: a line a row, the mean of its seeds.

    python experiments/curve_figure.py runs/*_seed* --out experiments/corners/robustness.png

Rows are those of `python -m ssl_skeleton.compare`: runs that differ in their seed alone, and each
representation of theirs that was scored by itself. The band is the standard deviation of a sample of seeds.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_skeleton.cli import run_command
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.curves import TITLES, UNITS
from ssl_skeleton.figures.curves import MOST_LINES, Line, Panel, save_curves
from ssl_skeleton.files import read_json
from ssl_skeleton.runs.tried import Tried, grouped, read_tried, row_names

Curve = dict[str, Any]
"""A curve of a result: its `unit`, `levels`, and `top1` at each."""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, draw the curves of all rows that have them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--evaluator", default="robustness", help="whose curves (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="the picture to write")
    given = parser.parse_args(arguments)
    curves = [(group, _of_row(group, given.evaluator)) for group in grouped(read_tried(given.runs))]
    curves = [(group, seeds) for group, seeds in curves if seeds]
    if not 1 <= len(curves) <= MOST_LINES:
        command = given.evaluator.partition("_")[0]
        raise UserError(
            f"--evaluator: {len(curves)} rows have results of '{given.evaluator}', of 1 to {MOST_LINES} that "
            f"can be drawn; make some with: python -m ssl_skeleton.{command} --run {given.runs[0]}"
        )
    groups = [group for group, _ in curves]
    rows = dict(zip(row_names(groups), (seeds for _, seeds in curves), strict=True))
    save_curves(_title(groups, given.evaluator), panels_of(rows), given.out)
    print(given.out)


def panels_of(rows: dict[str, list[dict[str, Curve]]]) -> list[Panel]:
    """A panel a curve, a line a row: the mean over its seeds. UserError where levels differ."""
    first = next(iter(rows.values()))[0]
    panels = []
    for name, curve in first.items():
        factor, unit = UNITS[curve["unit"]]
        lines = []
        for row, seeds in rows.items():
            for each in seeds:
                if each.get(name, {}).get("levels") != curve["levels"]:
                    raise UserError(
                        f"{row}: the curve '{name}' has other levels than another's; score it again"
                    )
            lines.append(_line(row, [each[name]["top1"] for each in seeds]))
        panels.append(Panel(f"{TITLES[name]} ({unit})", [factor * level for level in curve["levels"]], lines))
    return panels


def _line(row: str, top1: Sequence[Sequence[float]]) -> Line:
    """The mean of seeds at each level, and the standard deviation around it; of one seed none."""
    levels = list(zip(*top1, strict=True))
    means = [statistics.fmean(seeds) for seeds in levels]
    spread = [statistics.stdev(seeds) if len(seeds) > 1 else 0.0 for seeds in levels]
    band = [(mean - around, mean + around) for mean, around in zip(means, spread, strict=True)]
    return Line(row, means, band)


def _of_row(group: Sequence[Tried], evaluator: str) -> list[dict[str, Curve]]:
    """The curves of each seed by an evaluator."""
    paths = [Path(result.path) for one in group for result in one.results if result.evaluator == evaluator]
    return [curves for path in paths if (curves := read_json(path).get("curves"))]


def _title(groups: Sequence[Sequence[Tried]], evaluator: str) -> str:
    """What is drawn; UserError for several data sets."""
    found = [result for group in groups for one in group for result in one.results]
    places = {(one.store, one.split) for one in found if one.evaluator == evaluator}
    if len(places) > 1:
        raise UserError(f"{' and '.join(sorted(store for store, _ in places))}: draw each by itself")
    ((store, split),) = places
    return f"{evaluator} on {store}, split {split}: mean ± deviation over seeds"


if __name__ == "__main__":
    sys.exit(run_command(main))
