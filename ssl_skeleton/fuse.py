"""`python -m ssl_skeleton.fuse`: the class probabilities of several runs, weighted and added."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, apart_from_overrides, progress, run_command, some_path
from ssl_skeleton.evaluation.results import settings_of
from ssl_skeleton.runs.fusing import fuse, fusion_table
from ssl_skeleton.runs.run import Run
from ssl_skeleton.scoring import check_read, print_result

EXAMPLES = """\
  python -m ssl_skeleton.fuse runs/joint runs/bone runs/motion
  python -m ssl_skeleton.fuse runs/joint runs/bone runs/motion --weights 0.6 0.6 0.4
  python -m ssl_skeleton.fuse --run runs/joint --run runs/bone --choose --out runs/two_streams"""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, fuse the runs, print the table."""
    description = "Fuse runs: the class probabilities of their linear probes, weighted and added."
    parser = Parser("fuse", description, EXAMPLES)
    parser.add_argument(
        "--run",
        nargs="+",
        action="extend",
        default=[],
        metavar="FOLDER",
        help="runs too, as of several streams; all are of one split of one store",
    )
    weighing = parser.add_mutually_exclusive_group()
    weighing.add_argument("--weights", nargs="+", metavar="WEIGHT", help="one a run (all alike)")
    weighing.add_argument(
        "--choose", action="store_true", help="choose weights on training clips that are held out"
    )
    parser.add_argument(
        "--out", type=some_path, metavar="FOLDER", help="where eval/ goes (fused/NAMES beside the first run)"
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RUN or key.path=value",
        help="runs; evaluation.fuse.*, evaluation.linear.*, data.store, data.split, encoder.kernel or device",
    )
    given = parser.parse_intermixed_args(arguments)
    folders, after_runs = apart_from_overrides([*given.run, *given.words])
    weights, after_weights = apart_from_overrides(given.weights or [])
    overrides = []
    if weights:
        overrides = ["evaluation.fuse.choose=null", f"evaluation.fuse.weights=[{', '.join(weights)}]"]
    if given.choose:
        overrides = ["evaluation.fuse.weights=null", "evaluation.fuse.choose=log_likelihood"]
    overrides += [*after_runs, *after_weights]
    runs = [Run.open(Path(folder), overrides) for folder in folders]
    check_read(overrides, "fuse", settings_of("fuse"))
    lines: list[str] = []
    result = fuse(runs, given.out, lines.append, progress)
    print_result(runs[0], result, lines, fusion_table)


if __name__ == "__main__":
    sys.exit(run_command(main))
