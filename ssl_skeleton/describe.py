"""`python -m ssl_skeleton.describe`: what a store holds, what is wrong in it, and pictures of its clips."""

import json
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, progress, run_command
from ssl_skeleton.data.inspection.checking import check_store
from ssl_skeleton.data.inspection.description import describe
from ssl_skeleton.data.inspection.text import description_text
from ssl_skeleton.data.store import open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.figures.clips import choose_clips, draw_sheets, draw_strips

_CLIPS = 12
EXAMPLES = """\
  python -m ssl_skeleton.describe data/nw_ucla
  python -m ssl_skeleton.describe data/nw_ucla --check
  python -m ssl_skeleton.describe data/nw_ucla --json > nw_ucla.json
  python -m ssl_skeleton.describe data/nw_ucla --figure clips.png --clips all"""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, check or describe or draw, print; exit code 1 when a check finds faults."""
    parser = Parser("describe", "Show what a store holds and what is wrong in it.", EXAMPLES)
    parser.add_argument("store", type=Path, metavar="STORE", help="a store that `prepare` wrote")
    parser.add_argument("--check", action="store_true", help="verify every file instead, and list all faults")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw clips too")
    parser.add_argument(
        "--clips",
        type=_number_of_clips,
        default=_CLIPS,
        metavar="N",
        help="how many to draw, evenly over the classes (%(default)s), or 'all': contact sheets",
    )
    given = parser.parse_args(arguments)
    if given.clips != _CLIPS and not given.figure:
        raise UserError("--clips: says how many clips to draw; add --figure FILE.png")
    if given.figure and (given.check or given.figure.suffix.lower() != ".png"):
        raise UserError("--figure: choose a name that ends in .png, and go without --check")
    if given.check:
        _print_check(given.store, as_json=given.json)
        return
    store = open_store(given.store)
    tree = describe(store)
    print(json.dumps(tree, indent=2, allow_nan=False) if given.json else description_text(tree))
    drawn: list[Path] = []
    if given.figure and given.clips is None:
        drawn = draw_sheets(store, given.figure, lambda pages, total: progress(pages, total, "pages"))
    elif given.figure:
        drawn = draw_strips(store, choose_clips(store.labels, given.clips), given.figure)
    if drawn:
        print(f"drawn: {' to '.join(map(str, dict.fromkeys((drawn[0], drawn[-1]))))}", file=sys.stderr)


def _print_check(path: Path, *, as_json: bool) -> None:
    faults = check_store(path)
    if as_json:
        print(json.dumps({"store": str(path), "faults": faults}, indent=2))
    elif faults:
        print("\n".join(faults))
    else:
        print(f"{path}: in order, {open_store(path).meta.clips} clips")
    if faults:
        raise SystemExit(1)


def _number_of_clips(text: str) -> int | None:
    """A number of clips; None for all."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"'{text}' is neither a number of clips nor 'all'")
    return int(text)


if __name__ == "__main__":
    sys.exit(run_command(main))
