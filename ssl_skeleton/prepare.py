"""`python -m ssl_skeleton.prepare`: from a folder of recordings to a store."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, count, positive, progress, run_command, share, some_path
from ssl_skeleton.data.preparation.preparation import Preparation, prepare_store, read_missing, skipped_lines
from ssl_skeleton.data.preparation.reading import useful_processes
from ssl_skeleton.data.readers import FORMATS, open_reader
from ssl_skeleton.data.store import EVERYTHING, StoreMeta, open_store
from ssl_skeleton.errors import UserError

EXAMPLES = """\
  python -m ssl_skeleton.prepare nw_ucla --source recordings/nw_ucla --out data/nw_ucla
  python -m ssl_skeleton.prepare ntu60 --source nturgbd_skeletons_s001_to_s017.zip --out data/ntu60
  python -m ssl_skeleton.prepare cmu --source cmu_mocap --fps 30 --out data/cmu
  python -m ssl_skeleton.prepare own --source recordings --about about.yaml --out data/mine"""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, prepare the store, print what is in it and what was skipped."""
    width = max(map(len, FORMATS))
    formats = "\n".join(f"  {name:<{width}}  {kind.title}" for name, kind in FORMATS.items())
    epilog = f"{EXAMPLES}\n\ndata sets:\n{formats}"
    parser = Parser("prepare", "Read the recordings of a data set into a store.", epilog)
    parser.add_argument("dataset", help="a data set or format, see below")
    parser.add_argument(
        "--source",
        type=some_path,
        required=True,
        nargs="+",
        metavar="PATH",
        help="folders, zips or files",
    )
    parser.add_argument("--out", type=some_path, required=True, metavar="DIR", help="the store to write")
    parser.add_argument("--about", type=some_path, metavar="FILE", help="what own recordings are (YAML)")
    parser.add_argument("--fps", type=positive, metavar="RATE", help="resample to so many frames a second")
    parser.add_argument("--missing", type=some_path, metavar="FILE", help="a list of clips to leave out")
    parser.add_argument(
        "--processes",
        type=count,
        metavar="N",
        help="processes that read (all cores when there is much to read)",
    )
    parser.add_argument(
        "--max-damaged",
        type=share,
        default=0.05,
        metavar="SHARE",
        help="stop when more than this share of the files is damaged (%(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the store that is at --out")
    given = parser.parse_args(arguments)
    reader = open_reader(given.dataset, given.source, given.about)
    meta, result = prepare_store(
        reader,
        given.out,
        fps=given.fps,
        missing=read_missing(given.missing) if given.missing else frozenset(),
        max_damaged=given.max_damaged,
        overwrite=given.overwrite,
        processes=given.processes or useful_processes(len(reader.entries)),
        progress=lambda readings, total, done: progress(readings, total, given.dataset, done),
    )
    print(summary(given.out, meta, result))


def summary(out: Path, meta: StoreMeta, result: Preparation) -> str:
    """What the store holds and what was skipped, for a person."""
    lines = [f"went on after {result.resumed} files that were read before"] if result.resumed else []
    lines += [
        f"{out}: {meta.clips} clips, {result.frames} frames, {len(meta.classes)} classes, "
        f"{meta.layout.name}, splits {', '.join([*meta.splits, EVERYTHING])}"
    ]
    lines += [f"! {fault}" for fault in split_faults(out)]
    skipped = skipped_lines(result.skipped, f"all in {out / 'skipped.csv'}")
    return "\n".join([*lines, *(skipped or [f"skipped none of {result.files} files"])])


def split_faults(out: Path) -> list[str]:
    """The splits that the store cannot be divided by, with the reason."""
    store, faults = open_store(out), []
    for name in store.meta.splits:
        try:
            store.split(name)
        except UserError as error:
            faults.append(str(error))
    return faults


if __name__ == "__main__":
    sys.exit(run_command(main))
