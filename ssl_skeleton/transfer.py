"""`python -m ssl_skeleton.transfer`: a run probed on stores that it did not learn from."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, add_overrides, apart_from_overrides, run_command
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.results import settings_of
from ssl_skeleton.runs.transferring import (
    body_line,
    own_runs,
    target_runs,
    transfer,
    transfer_table,
    unseen_lines,
)
from ssl_skeleton.scoring import check_read, notes

EXAMPLES = """\
  python -m ssl_skeleton.transfer --run runs/crrl_ntu60 --to stores/nw_ucla
  python -m ssl_skeleton.transfer --run runs/crrl_ntu60 --to stores/nw_ucla:cross_view stores/utkinect
  python -m ssl_skeleton.transfer --run runs/crrl_ntu60 --to stores/nw_ucla --probe knn --no-own \\
      'evaluation.knn.k=[1, 5]'"""

_PROBES = {"linear": ("linear",), "knn": ("knn",), "both": ("linear", "knn")}


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, look at all stores, probe the run on each, print the table."""
    parser = Parser("transfer", "Probe a run's frozen encoder on other stores.", EXAMPLES)
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="the run to probe")
    parser.add_argument(
        "--to",
        nargs="+",
        action="extend",
        required=True,
        metavar="STORE[:SPLIT]",
        help="other stores; without a split, that of the run's own name, or the only one that the store has",
    )
    parser.add_argument("--probe", choices=_PROBES, default="both", help="which probes (%(default)s)")
    parser.add_argument("--no-own", action="store_true", help="go without the store that it learned from")
    add_overrides(parser, "what linear and knn take, but data.store and data.split")
    given = parser.parse_intermixed_args(arguments)
    targets, more = apart_from_overrides(given.to)
    overrides = [*given.overrides, *more]
    for override in overrides:
        if override.startswith(("data.store=", "data.split=")):
            raise UserError(f"'{override}': what it is probed on is said with --to STORE:SPLIT")
    probes = _PROBES[given.probe]
    read = [setting for probe in probes for setting in settings_of(probe)]
    others = target_runs(given.run, targets, overrides, probes)
    check_read(overrides, f"transfer --probe {given.probe}", read)
    own = [] if given.no_own else own_runs(given.run, overrides, probes, tell=print)
    runs = list({(run.store.path.resolve(), run.splits[0].name): run for run in [*own, *others]}.values())
    for run in runs:
        print(body_line(run), flush=True)
    lines: list[str] = []
    results = transfer(runs, probes, lines.append)
    below = [
        f"{run.store.path}, split {run.splits[0].name}: {line}"
        for run, result in zip(runs, results, strict=True)
        for scores in result.values()
        for line in notes(scores)
    ]
    table = [transfer_table(results, len(own)), *unseen_lines(runs, results), "", *below]
    print("\n".join(["", *table, *lines]))


if __name__ == "__main__":
    sys.exit(run_command(main))
