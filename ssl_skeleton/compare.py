"""`python -m ssl_skeleton.compare`: one table of the scores of several runs, over seeds."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, run_command, some_path
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.comparison.grids import one_line
from ssl_skeleton.evaluation.comparison.tables import FORMATS
from ssl_skeleton.files import write_text, writing
from ssl_skeleton.runs.comparing import Wanted, comparison_table
from ssl_skeleton.runs.tried import NAMES

EXAMPLES = """\
  python -m ssl_skeleton.compare runs/crrl_nw_ucla runs/ser_nw_ucla
  python -m ssl_skeleton.compare runs/*_seed* --evaluator linear knn --against runs/crrl_seed0
  python -m ssl_skeleton.compare runs/a runs/b --score top1 balanced --no-baselines
  python -m ssl_skeleton.compare runs/fused --score top1 balanced
  python -m ssl_skeleton.compare runs/* --format latex --out table.tex
  python -m ssl_skeleton.compare runs/* --format csv > scores.csv"""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, compare, print or write the table."""
    given = _parser().parse_intermixed_args(arguments)
    _check_place(given.out, overwrite=given.overwrite)
    wanted = Wanted(given.evaluator, given.score, given.store, given.split, given.all)
    table = comparison_table(
        given.runs, wanted, against=given.against, baselines=not given.no_baselines, names=given.names
    )
    if given.format == "csv":  # a table for programs has no place for notes
        for note in table.notes:
            print(f"note: {one_line(note)}", file=sys.stderr)
    text = FORMATS[given.format](table)
    if given.out is None:
        print(text)
        return
    with writing(given.out):
        write_text(given.out, f"{text}\n")
    print(f"{given.out}: {len(table.rows)} rows")


def _parser() -> Parser:
    description = (
        "Print one table of the scores of several runs, or fusions. Those that differ in their seed alone "
        "are one row."
    )
    parser = Parser("compare", description, EXAMPLES)
    parser.add_argument(
        "runs", type=some_path, nargs="+", metavar="RUN", help="runs or fusions, scored before"
    )
    parser.add_argument("--evaluator", nargs="+", default=(), metavar="NAME", help="these alone, as linear")
    parser.add_argument(
        "--score",
        nargs="+",
        default=(),
        metavar="NAME",
        help="these, as top1 balanced k area; by default the first of every evaluator, or the areas under "
        "its curves",
    )
    parser.add_argument("--store", nargs="+", default=(), metavar="NAME", help="on these stores alone")
    parser.add_argument("--split", nargs="+", default=(), metavar="NAME", help="on these splits alone")
    parser.add_argument(
        "--all",
        action="store_true",
        help="columns that some rows lack, too; by default those that all have, if there are some",
    )
    parser.add_argument(
        "--against",
        type=some_path,
        metavar="RUN",
        help="from whose row differences go; by default the first",
    )
    parser.add_argument("--no-baselines", action="store_true", help="leave the baselines out")
    parser.add_argument(
        "--names",
        choices=tuple(NAMES),
        help="what rows are called after: runs, recipes, or the keys in which recipes differ; by default the "
        "first of these that tells rows apart",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="(%(default)s)")
    parser.add_argument("--out", type=some_path, metavar="FILE", help="write the table there")
    parser.add_argument("--overwrite", action="store_true", help="replace the file that is at --out")
    return parser


def _check_place(out: Path | None, *, overwrite: bool) -> None:
    """Refuse a place where something else is."""
    if out is None or not os.path.lexists(out):
        return
    if out.is_dir():
        raise UserError(f"{out}: is a folder; choose another --out")
    if not overwrite:
        raise UserError(f"{out}: already exists; choose another --out, or add --overwrite")


if __name__ == "__main__":
    sys.exit(run_command(main))
