"""`python -m ssl_skeleton.prepare`: from a folder of recordings to a store."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, progress, run_command, share
from ssl_skeleton.data.preparation import Preparation, prepare_store, read_missing
from ssl_skeleton.data.readers import READERS
from ssl_skeleton.data.splits import split_names
from ssl_skeleton.data.store import StoreMeta
from ssl_skeleton.errors import UserError, nearest

EXAMPLES = """\
  python -m ssl_skeleton.prepare nw_ucla --source recordings/nw_ucla --out data/nw_ucla
  python -m ssl_skeleton.prepare ntu60 --source nturgb+d_skeletons --out data/ntu60 --missing missing.txt"""
LISTED = 5  # names shown of each kind of skipped clip


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, prepare the store, print what is in it and what was skipped."""
    parser = Parser("prepare", "Read the recordings of a data set into a store.", EXAMPLES)
    parser.add_argument("dataset", help=f"one of {', '.join(READERS)}")
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="the folder of recordings")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the store to write")
    parser.add_argument("--missing", type=Path, metavar="FILE", help="a list of samples to leave out")
    parser.add_argument(
        "--max-damaged",
        type=share,
        default=0.05,
        metavar="SHARE",
        help="stop when more than this share of the files is damaged (%(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the store that is at --out")
    given = parser.parse_args(arguments)
    if given.dataset not in READERS:
        raise UserError(f"data set '{given.dataset}' is unknown; {nearest(given.dataset, READERS)}")
    meta, result = prepare_store(
        READERS[given.dataset],
        given.source,
        given.out,
        missing=read_missing(given.missing) if given.missing else frozenset(),
        max_damaged=given.max_damaged,
        overwrite=given.overwrite,
        progress=lambda paths, total: progress(paths, total, given.dataset),
    )
    print(summary(given.out, meta, result))


def summary(out: Path, meta: StoreMeta, result: Preparation) -> str:
    """What the store holds and what was skipped, for a person."""
    lines = [
        f"{out}: {meta.clips} clips, {result.frames} frames, {len(meta.classes)} classes, {meta.layout}, "
        f"splits {', '.join(split_names(meta.dataset))}"
    ]
    for why, names in result.skipped.items():
        more = f"; all in {out / 'skipped.csv'}" if len(names) > LISTED else ""
        shown = "; ".join(name if name.isprintable() else repr(name) for name in names[:LISTED])
        lines += [f"skipped {len(names)} {why}: {shown}{more}"] if names else []
    return "\n".join(lines if len(lines) > 1 else [*lines, f"skipped none of {result.files} files"])


if __name__ == "__main__":
    sys.exit(run_command(main))
