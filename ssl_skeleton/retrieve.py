"""`python -m ssl_skeleton.retrieve`: let test clips find clips of their class in a gallery."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, add_overrides, progress, run_command, some_path
from ssl_skeleton.errors import UserError
from ssl_skeleton.runs.retrieving import gallery_line, open_collection, retrieve
from ssl_skeleton.runs.run import Run
from ssl_skeleton.scoring import check_read, override_help, print_result, settings_read

EXAMPLES = """\
  python -m ssl_skeleton.retrieve --run runs/crrl_nw_ucla
  python -m ssl_skeleton.retrieve --run runs/crrl_nw_ucla 'evaluation.retrieve.k=[1, 20]'
  python -m ssl_skeleton.retrieve --run runs/crrl_ntu60 --gallery stores/pku_mmd --gallery-split all"""


def main(arguments: Sequence[str]) -> None:
    """Score a run and print the table."""
    description = (
        "Let test clips find clips of their class in a gallery: the training part, or another store."
    )
    parser = Parser("retrieve", description, EXAMPLES)
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="the run to score")
    parser.add_argument("--gallery", type=some_path, metavar="STORE", help="look in this store")
    parser.add_argument(
        "--gallery-split",
        metavar="NAME",
        help="in the training part of this split of it; by default that of the run's own name, or else all",
    )
    add_overrides(parser, override_help("retrieve"))
    given = parser.parse_intermixed_args(arguments)
    if given.gallery_split and not given.gallery:
        raise UserError("--gallery-split: goes with --gallery STORE; of the run's own store, use data.split")
    run = Run.open(given.run, given.overrides)
    check_read(given.overrides, "retrieve", settings_read(run, "retrieve"))
    gallery = None
    if given.gallery:
        gallery = open_collection(run, given.gallery, given.gallery_split)
        print(gallery_line(run, gallery), flush=True)
    lines: list[str] = []
    print_result(run, retrieve(run, gallery, lines.append, progress), lines)


if __name__ == "__main__":
    sys.exit(run_command(main))
