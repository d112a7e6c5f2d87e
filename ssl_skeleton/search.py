"""`python -m ssl_skeleton.search`: an index of clips, and the clips in it that are most like a recording."""

import json
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_skeleton.cli import (
    Parser,
    add_overrides,
    apart_from_overrides,
    count,
    progress,
    run_command,
    some_path,
)
from ssl_skeleton.data.preparation.preparation import skipped_lines
from ssl_skeleton.data.preparation.reading import Reading
from ssl_skeleton.data.preparation.temporary import Recordings
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.search.embeddings import Embeddings, read_embeddings
from ssl_skeleton.evaluation.search.index import (
    Hit,
    SearchIndex,
    check_named_once,
    is_index,
    open_index,
    write_index,
)
from ssl_skeleton.evaluation.search.ways import WAYS
from ssl_skeleton.files import new_folder, writing
from ssl_skeleton.recorded import add_recordings, recordings_of
from ssl_skeleton.runs.embedding import (
    embed,
    embed_clips,
    embed_recordings,
    named_clips,
    prepared_for,
    run_of,
)
from ssl_skeleton.runs.probing import on_store
from ssl_skeleton.runs.run import Run
from ssl_skeleton.scoring import check_read

EXAMPLES = """\
  python -m ssl_skeleton.search build --run runs/crrl_nw_ucla --out gallery
  python -m ssl_skeleton.search build --run runs/crrl_nw_ucla --store data/nw_ucla data/mine --out gallery
  python -m ssl_skeleton.search build --embeddings embeddings --index hnsw --out gallery
  python -m ssl_skeleton.search query gallery --source wave.npy --about about.yaml -k 5
  python -m ssl_skeleton.search query gallery --source one.skeleton --format ntu60 --json
  python -m ssl_skeleton.search query gallery --store data/nw_ucla --clip a01_s01_e00_v01 --exclude-self"""


def main(arguments: Sequence[str]) -> None:
    """Hand the arguments to what is to be done."""
    actions = {"build": _build, "query": _query}
    parser = Parser("search", "Find the clips that are most like a recording.", EXAMPLES)
    parser.add_argument("action", choices=actions, help="make an index, or ask one; each has its own --help")
    actions[parser.parse_args(arguments[:1]).action](arguments[1:])


def _build(arguments: Sequence[str]) -> None:
    parser = Parser("search build", "Make an index of the clips of stores.", EXAMPLES)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, metavar="FOLDER", help="the run whose encoder embeds the clips")
    source.add_argument(
        "--embeddings", type=some_path, nargs="+", metavar="FOLDER", help="what `embed` wrote, by one run"
    )
    parser.add_argument(
        "--store", type=some_path, nargs="+", default=(), metavar="STORE", help="stores (the run's own)"
    )
    parser.add_argument(
        "--index", choices=WAYS, default="exact", help="what the search will do (%(default)s)"
    )
    parser.add_argument("--out", type=some_path, required=True, metavar="DIR", help="the index to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the index that is at --out")
    add_overrides(parser, "device, encoder.kernel or data.residence")
    given = parser.parse_intermixed_args(arguments)
    stores, more = apart_from_overrides([str(store) for store in given.store])
    overrides = [*given.overrides, *more]
    check_read(overrides, "search build", ())
    if given.embeddings and (stores or overrides):
        raise UserError("--embeddings: goes without --store and overrides; its clips are encoded already")
    with new_folder(given.out, overwrite=given.overwrite, is_mine=is_index) as folder:
        if given.embeddings:
            parts, said = [read_embeddings(place) for place in given.embeddings], ""
        else:
            parts, said = _embedded(Run.open(given.run, overrides), [*map(Path, stores)])
        with writing(given.out):
            meta = write_index(folder, parts, given.index)
    found = "" if meta.recall is None else f", finds {100 * meta.recall:.1f} % of the 10 nearest"
    print(f"{given.out}: {meta.clips} clips of {meta.dim} features, {meta.kind}{found}{said}")


def _embedded(run: Run, stores: Sequence[Path]) -> tuple[list[Embeddings], str]:
    """What the run makes of stores, and how fast; all of them are looked at before any is encoded."""
    runs = [on_store(run, store) for store in stores or map(Path, run.recipe.data.stores)]
    for one in runs:
        one.check_body(one.store)
    check_named_once([one.store.path.resolve() for one in runs])
    began = time.perf_counter()
    parts = [embed(one) for one in runs]
    rate = sum(map(len, parts)) / (time.perf_counter() - began)
    return parts, f"; embedded {rate:.0f} clips/s"


def _query(arguments: Sequence[str]) -> None:
    parser = Parser("search query", "Find the clips of an index that are most like others.", EXAMPLES)
    parser.add_argument("index", type=some_path, metavar="INDEX", help="an index that `search build` wrote")
    parser.add_argument(
        "--store", type=some_path, metavar="STORE", help="the store of the clips to ask about"
    )
    parser.add_argument("--clip", nargs="+", metavar="NAME", help="their names")
    add_recordings(parser)
    parser.add_argument("-k", type=count, default=5, metavar="K", help="how many to find (%(default)s)")
    parser.add_argument(
        "--effort", type=count, metavar="N", help="cells (ivf) or list (hnsw) to look at: more finds more"
    )
    parser.add_argument(
        "--exclude-self",
        action="store_true",
        help="leave out the clip that is asked about: of its name, and with --clip of its store too",
    )
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="where the index's run is now")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_overrides(parser, "device, encoder.kernel or data.residence")
    given = parser.parse_intermixed_args(arguments)
    recordings = recordings_of(given)
    if (recordings is None) == (given.store is None) or (given.store is None) != (given.clip is None):
        raise UserError("query: name either --source PATH, or --store STORE and --clip NAME")
    check_read(given.overrides, "search query", ())
    index = open_index(given.index)
    index.check_count(given.k)
    run = run_of(index.meta.origin, given.index, given.run, given.overrides)
    skipped: dict[str, list[str]] = {}
    if recordings is None:
        run = on_store(run, given.store)
        found = embed_clips(run, [named_clips(run.store, given.clip)])
    else:
        found, skipped = _of_recordings(run, recordings)
    own = None
    if given.exclude_self:
        own = index.rows_of(found.names, found.meta.store if recordings is None else None)
    hits = index.search(found.features, given.k, given.effort, own)
    if given.json:
        print(json.dumps(_tree(index, found.names, hits, skipped), indent=2, allow_nan=False))
    else:
        print("\n".join([*_lines(index, found.names, hits, own), *skipped_lines(skipped)]))


def _of_recordings(run: Run, recordings: Recordings) -> tuple[Embeddings, dict[str, list[str]]]:
    def shown(readings: Iterable[Reading], total: int, done: int) -> Iterable[Reading]:
        return progress(readings, total, recordings.format, done)

    with prepared_for(run, recordings, shown) as (store, result):
        return embed_recordings(run, store, recordings), result.skipped


def _tree(
    index: SearchIndex, names: Sequence[str], hits: Sequence[Sequence[Hit]], skipped: Mapping[str, Any]
) -> dict[str, Any]:
    queries = [
        {"clip": name, "nearest": [_hit_tree(hit) for hit in found]}
        for name, found in zip(names, hits, strict=True)
    ]
    origin = index.meta.origin.to_tree()
    return {"index": str(index.path), "origin": origin, "queries": queries, "skipped": dict(skipped)}


def _hit_tree(hit: Hit) -> dict[str, Any]:
    """A hit as plain values, its class under the name that it has everywhere."""
    return {
        "row": hit.row,
        "name": hit.name,
        "class": hit.label,
        "store": hit.store,
        "likeness": hit.likeness,
    }


def _lines(
    index: SearchIndex,
    names: Sequence[str],
    hits: Sequence[Sequence[Hit]],
    own: Sequence[Collection[int]] | None,
) -> list[str]:
    """A line a query and, below it, a line a hit: likeness, class, store, name. `own` rows were left out."""
    lines = []
    for name, found, without in zip(names, hits, own or [()] * len(names), strict=True):
        lines.append(f"{_shown(name)}: nearest of {len(index) - len(without)} clips")
        cells = [(_shown(hit.label) or "-", _shown(hit.store), _shown(hit.name)) for hit in found]
        label, store = (max(len(cell[place]) for cell in cells) for place in (0, 1))
        for hit, cell in zip(found, cells, strict=True):
            lines.append(f"  {hit.likeness:7.4f}  {cell[0]:<{label}}  {cell[1]:<{store}}  {cell[2]}")
    return lines


def _shown(text: str) -> str:
    """A name as a terminal can show it; an index may come from a stranger."""
    return text if text.isprintable() else repr(text)


if __name__ == "__main__":
    sys.exit(run_command(main))
