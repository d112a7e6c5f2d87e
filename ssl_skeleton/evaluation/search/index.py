"""A search index: the features of clips on disk, and which clips they are, so that the nearest are found.

`vectors.npy` float32 (N, D): the features at length 1
`clips.csv`   a line a clip: name, class (empty when unknown), store, row
`meta.json`   format version, kind, counts, the stores, the encoder that made the features, checksums
An index that does not compare all vectors has its arrays beside these (`ways.py`).
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_skeleton.config import Config
from ssl_skeleton.data.store import row_blocks, sha256
from ssl_skeleton.data.untrusted import load_array, read_tree
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.neighbours.gallery import Neighbours, recall
from ssl_skeleton.evaluation.search.clip_table import read_table, write_table
from ssl_skeleton.evaluation.search.embeddings import EmbeddedStore, Embeddings, Origin, is_embeddings
from ssl_skeleton.evaluation.search.ways import WAYS, Exact, Kind, Vectors, Way, nearest, unit_rows
from ssl_skeleton.files import write_atomically, write_json

FORMAT = 1
COLUMNS = ("name", "class", "store", "row")
_MEND = "build the index again"
_FILES = frozenset(("vectors.npy", "clips.csv"))
_SAMPLE, _SAMPLE_K = 100, 10  # with which it is measured how many of the true neighbours are found
_FAR_FROM_ONE = 1e-3


class IndexMeta(Config):
    """The contents of meta.json.

    `effort` is what a search usually makes (`ways.Way`), and `recall` the share of the 10 nearest that
    it then finds, of 100 clips of the index; null where all vectors are compared. `seen` says how clips were
    shown to the encoder.
    """

    format: int = FORMAT
    kind: Kind
    clips: int = Field(ge=1)
    dim: int = Field(ge=1)
    effort: int = Field(ge=1)
    recall: float | None
    origin: Origin
    seen: dict[str, Any]
    stores: tuple[EmbeddedStore, ...] = Field(min_length=1)
    sha256: dict[str, str] = Field(default_factory=dict)


class Hit(NamedTuple):
    """A clip of an index: its row there, and its likeness with what was searched for, from -1 to 1."""

    row: int
    name: str
    label: str
    store: str
    likeness: float


@dataclass(frozen=True)
class SearchIndex:
    """An open index: of every row the clip's name, class and store. Vectors stay in their file."""

    path: Path
    meta: IndexMeta
    names: tuple[str, ...]
    classes: tuple[str, ...]
    stores: tuple[str, ...]
    vectors_nd: Vectors
    way: Way

    def __len__(self) -> int:
        return len(self.names)

    def search(
        self,
        queries_qd: NDArray[np.float32],
        k: int,
        effort: int | None = None,
        without: Sequence[Collection[int]] | None = None,
    ) -> list[list[Hit]]:
        """The k clips nearest to each query by cosine, nearest first; of equal ones the lower row is first.

        `without` has for each query the rows that are no answer to it. Raises UserError when there are not so
        many clips, or queries are not of the index's size.
        """
        if without is not None:
            most = max(map(len, without), default=0)
            self.check_count(k, most)
            found = self.search(queries_qd, k + most, effort)
            others = zip(found, without, strict=True)
            return [[hit for hit in hits if hit.row not in rows][:k] for hits, rows in others]
        self.check_count(k)
        if queries_qd.shape[1:] != (self.meta.dim,):
            raise UserError(f"{self.path}: has {self.meta.dim} features a clip, not {queries_qd.shape[1]}")
        rows_qk, likeness_qk = nearest(
            self.way, self.vectors_nd, queries_qd, k, self.meta.effort if effort is None else effort
        )
        pairs = zip(rows_qk.tolist(), likeness_qk.tolist(), strict=True)
        return [[self._hit(*hit) for hit in zip(*pair, strict=True)] for pair in pairs]

    def rows_of(self, names: Sequence[str], store: EmbeddedStore | None = None) -> list[set[int]]:
        """The rows of the clips of each name; of one store alone, by place or content, where it is given."""
        rows: dict[str, set[int]] = {name: set() for name in names}
        same = {
            shown
            for one, shown in zip(self.meta.stores, shown_names(self.meta.stores), strict=True)
            if store is None or one.path == store.path or one.sum == store.sum
        }
        for row, (name, where) in enumerate(zip(self.names, self.stores, strict=True)):
            if name in rows and where in same:
                rows[name].add(row)
        return [rows[name] for name in names]

    def check_count(self, k: int, without: int = 0) -> None:
        """Raise UserError when there are not k clips, `without` so many of them."""
        there = len(self) - without
        if not 1 <= k <= there:
            others = f", less {without} that are left out" if without else ""
            raise UserError(f"{self.path}: k = {k} must lie in 1..{there}, the clips of the index{others}")

    def _hit(self, row: int, likeness: float) -> Hit:
        return Hit(row, self.names[row], self.classes[row], self.stores[row], likeness)


def write_index(folder: Path, parts: Sequence[Embeddings], kind: Kind) -> IndexMeta:
    """Write the index of embedded clips into a folder that is there.

    Raises UserError when they were not all made by one encoder, or come twice.
    """
    first = parts[0].meta
    _check_parts(parts)
    vectors_nd = np.concatenate([unit_rows(part.features) for part in parts])
    way = WAYS[kind].build(vectors_nd)
    for name, array in {"vectors": vectors_nd, **way.arrays}.items():
        write_atomically(folder / f"{name}.npy", partial(np.save, arr=array, allow_pickle=False))
    write_table(folder / "clips.csv", COLUMNS, _lines(parts))
    meta = IndexMeta(
        kind=kind,
        clips=len(vectors_nd),
        dim=vectors_nd.shape[1],
        effort=way.effort,
        recall=None if kind == "exact" else _recall(way, vectors_nd),
        origin=first.origin,
        seen=first.seen,
        stores=tuple(part.meta.store for part in parts),
        sha256={name: sha256(folder / name) for name in sorted(_files(kind))},
    )
    write_json(folder / "meta.json", meta.to_tree())
    return meta


def open_index(path: Path) -> SearchIndex:
    """Open an index, which may come from a stranger: all that it holds is checked before it is used.

    All of it is read once for that; no more memory is taken than its names need. Raises UserError when it is
    damaged, or something else.
    """
    if not (path / "meta.json").is_file():
        raise UserError(f"{path}: not a search index; make one with: python -m ssl_skeleton.search build")
    if is_embeddings(path):
        build = f"python -m ssl_skeleton.search build --embeddings {path} --out DIR"
        raise UserError(f"{path}: is what `embed` wrote, not a search index; make one of it with: {build}")
    meta = _read_meta(path / "meta.json")
    cells = read_table(path / "clips.csv", COLUMNS, meta.clips, _MEND)
    if cells["row"] != tuple(map(str, range(meta.clips))):
        raise UserError(f"{path / 'clips.csv'}: its rows do not count from 0 on; {_MEND}")
    vectors_nd = load_array(path / "vectors.npy", _MEND)
    if (vectors_nd.shape, vectors_nd.dtype.str) != ((meta.clips, meta.dim), "<f4"):
        told = f"{vectors_nd.shape} of {vectors_nd.dtype.str}, not {(meta.clips, meta.dim)} of <f4"
        raise UserError(f"{path / 'vectors.npy'}: holds {told} as meta.json says; {_MEND}")
    kind = WAYS[meta.kind]
    way = kind(**{field.name: load_array(path / f"{field.name}.npy", _MEND) for field in _fields(kind)})
    for name in sorted(_files(meta.kind)):
        if meta.sha256.get(name) != sha256(path / name):
            raise UserError(f"{path / name}: is not what meta.json tells of, by its SHA-256 sum; {_MEND}")
    _check_lengths(path / "vectors.npy", vectors_nd)
    if fault := way.fault(meta.clips, meta.dim):
        raise UserError(f"{path}: {fault}; {_MEND}")
    return SearchIndex(path, meta, cells["name"], cells["class"], cells["store"], vectors_nd, way)


def check_named_once(stores: Sequence[str | Path]) -> None:
    """Raise UserError when an index would hold a store twice."""
    for store, count in Counter(stores).items():
        if count > 1:
            raise UserError(f"{store}: is named twice; an index holds a store once")


def shown_names(stores: Sequence[EmbeddedStore]) -> list[str]:
    """What clips.csv calls each store: its folder's name, or its path where two have that name."""
    names = Counter(store.name for store in stores)
    return [store.name if names[store.name] == 1 else store.path for store in stores]


def is_index(folder: Path) -> bool:
    """Whether a folder is an index, in whatever state, and holds nothing else."""
    known = {"meta.json"}.union(*map(_files, WAYS))
    if not (folder / "meta.json").is_file() or not {path.name for path in folder.iterdir()} <= known:
        return False
    try:
        tree = read_tree(folder / "meta.json")
    except UserError:
        return (folder / "vectors.npy").is_file()
    return isinstance(tree, dict) and {"format", "kind", "origin", "stores"} <= tree.keys()


def _read_meta(path: Path) -> IndexMeta:
    tree = read_tree(path, _MEND)
    if not isinstance(tree, dict) or tree.get("format") != FORMAT or "kind" not in tree:
        raise UserError(f"{path}: does not tell of a search index in format {FORMAT}; {_MEND}")
    return IndexMeta.from_tree(tree, str(path))


def _fields(kind: type[Way]) -> tuple[Any, ...]:
    return fields(kind)  # type: ignore[arg-type]


def _files(kind: Kind) -> frozenset[str]:
    """The names of the files beside meta.json."""
    return _FILES | {f"{field.name}.npy" for field in _fields(WAYS[kind])}


def _check_parts(parts: Sequence[Embeddings]) -> None:
    first = parts[0].meta
    check_named_once([part.meta.store.path for part in parts])
    for part in parts:
        if part.meta.origin.encoder_sum != first.origin.encoder_sum:
            runs = f"{part.meta.origin.run} embedded {part.meta.store.path}"
            raise UserError(f"{runs}, but other weights ({first.origin.run}) the rest; embed all by one run")


def _lines(parts: Sequence[Embeddings]) -> list[tuple[str | int, ...]]:
    """The lines of clips.csv."""
    lines: list[tuple[str | int, ...]] = []
    for part, shown in zip(parts, shown_names([part.meta.store for part in parts]), strict=True):
        for name, label in zip(part.names, part.class_names, strict=True):
            lines.append((name, label, shown, len(lines)))
    return lines


def _recall(way: Way, vectors_nd: Vectors) -> float:
    """The share of the true neighbours that a search finds, of a sample of the vectors themselves."""
    clips = len(vectors_nd)
    sample = vectors_nd[np.unique(np.linspace(0, clips - 1, _SAMPLE).round().astype(np.int64))]
    k = min(_SAMPLE_K, clips)
    found, true = (nearest(one, vectors_nd, sample, k, one.effort) for one in (way, Exact()))
    return recall(Neighbours(*found), Neighbours(*true))


def _check_lengths(path: Path, vectors_nd: Vectors) -> None:
    """Raise UserError unless every vector has the length 1, or 0."""
    for rows in row_blocks(len(vectors_nd)):
        block = np.asarray(vectors_nd[rows])
        with np.errstate(all="ignore"):
            length_n = np.sqrt(np.einsum("nd,nd->n", block, block, dtype=np.float64))
        wrong = ~((np.abs(length_n - 1) < _FAR_FROM_ONE) | (length_n == 0))  # NaN is wrong too
        if wrong.any():
            row = rows.start + int(np.flatnonzero(wrong)[0])
            raise UserError(f"{path}: row {row} is no vector of length 1; {_MEND}")
