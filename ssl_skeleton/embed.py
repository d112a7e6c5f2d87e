"""`python -m ssl_skeleton.embed`: write the features that a run's encoder gives for clips."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, add_overrides, progress, run_command, some_path
from ssl_skeleton.data.preparation.preparation import skipped_lines
from ssl_skeleton.data.preparation.temporary import Recordings
from ssl_skeleton.data.store import EVERYTHING
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.search.embeddings import Embeddings, is_embeddings, write_embeddings
from ssl_skeleton.files import new_folder, writing
from ssl_skeleton.recorded import add_recordings, recordings_of
from ssl_skeleton.runs.embedding import PARTS, embed, embed_recordings, prepared_for
from ssl_skeleton.runs.probing import on_store
from ssl_skeleton.runs.run import Run
from ssl_skeleton.scoring import check_read

EXAMPLES = """\
  python -m ssl_skeleton.embed --run runs/crrl_nw_ucla --out embeddings
  python -m ssl_skeleton.embed --run runs/crrl_nw_ucla --store data/mine --split xsub --part test --out mine
  python -m ssl_skeleton.embed --run runs/crrl_nw_ucla --source recordings --about about.yaml --out mine
  python -m ssl_skeleton.embed --run runs/crrl_nw_ucla --source S001C001P001R001A001.skeleton \\
      --format ntu60 --out one"""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, encode, write, say what was written."""
    parser = Parser("embed", "Write the features that a run's encoder gives for clips.", EXAMPLES)
    parser.add_argument(
        "--run", type=Path, required=True, metavar="FOLDER", help="the run whose encoder it is"
    )
    parser.add_argument("--store", type=some_path, help="a prepared store (the run's own)")
    parser.add_argument("--split", help="a split of the store, for --part (the run's own, on its own store)")
    parser.add_argument("--part", choices=PARTS, default="all", help="which clips of it (%(default)s)")
    add_recordings(parser)
    parser.add_argument("--out", type=some_path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the embeddings that are at --out")
    add_overrides(parser, "device, encoder.kernel or data.residence")
    given = parser.parse_intermixed_args(arguments)
    recordings = recordings_of(given)
    run = Run.open(given.run, given.overrides)
    check_read(given.overrides, "embed", ())
    with new_folder(given.out, overwrite=given.overwrite, is_mine=is_embeddings) as folder:
        if recordings is None:
            lines = _embed_store(run, given, folder)
        else:
            lines = _embed_recordings(run, given, recordings, folder)
    print("\n".join(lines))


def _embed_store(run: Run, given: argparse.Namespace, folder: Path) -> list[str]:
    if given.store is not None:
        run = on_store(run, given.store, given.split or EVERYTHING)
    elif len(run.recipe.data.stores) > 1:
        stores = ", ".join(run.recipe.data.stores)
        raise UserError(f"{run.folder}: learned from several stores ({stores}); choose one with --store")
    elif given.split is not None:
        run = on_store(run, run.store.path, given.split)
    began = time.perf_counter()
    found = embed(run, given.part)
    with writing(given.out):
        write_embeddings(folder, found)
    return [_said(given.out, found, time.perf_counter() - began)]


def _embed_recordings(run: Run, given: argparse.Namespace, recordings: Recordings, folder: Path) -> list[str]:
    if given.store is not None or given.split is not None or given.part != "all":
        raise UserError("--source: goes without --store, --split and --part; prepare a store to divide it")
    with prepared_for(
        run, recordings, lambda readings, total, done: progress(readings, total, recordings.format, done)
    ) as (store, result):
        began = time.perf_counter()
        found = embed_recordings(run, store, recordings)
        with writing(given.out):
            write_embeddings(folder, found)
            shutil.copyfile(store.path / "skipped.csv", folder / "skipped.csv")
        said = _said(given.out, found, time.perf_counter() - began)
    skipped = skipped_lines(result.skipped, f"all in {given.out / 'skipped.csv'}")
    return [said, *(skipped or [f"skipped none of {result.files} files"])]


def _said(out: Path, found: Embeddings, seconds: float) -> str:
    clips, dim = found.features.shape
    return (
        f"{out}: {clips} clips of {found.meta.store.path}, {dim} features each, {clips / seconds:.0f} clips/s"
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
