"""Ways to find the nearest of many vectors: by looking at all, at some cells (IVF), or along a graph (HNSW).

Each is a few plain arrays, which can lie in files and stay there: what faiss builds is taken apart, and
searched here. So no file of faiss's own has to be read, which would trust whoever wrote it.
"""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.store import row_blocks
from ssl_skeleton.evaluation.neighbours.indexes import HnswConfig, IvfConfig, built

Kind = Literal["exact", "ivf", "hnsw"]
Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

DIGITS = 6  # of a likeness; float32 carries no more
_AT_ONCE = 1 << 25  # likenesses in memory
_MOST_LINKS, _MOST_LEVELS = 1 << 12, 1 << 6


class Way(ABC):
    """Finds rows of unit vectors (N, D) among which are the nearest ones to a query.

    The fields are the arrays that it consists of. `effort` is how much it looks at unless it is told
    otherwise: more finds more of the true neighbours.
    """

    kind: ClassVar[Kind]
    effort: ClassVar[int]
    dtypes: ClassVar[Mapping[str, tuple[str, int]]] = {}  # and axes of the arrays

    @classmethod
    @abstractmethod
    def build(cls, vectors_nd: Vectors) -> Self:
        """Arrange the vectors."""

    def fault(self, clips: int, dim: int) -> str | None:
        """What is wrong with the arrays for so many vectors; None when they can be searched safely."""
        for name, wanted in self.dtypes.items():
            found = (getattr(self, name).dtype.str, getattr(self, name).ndim)
            if found != wanted:
                return f"{name} is of {found[0]} with {found[1]} axes, not of {wanted[0]} with {wanted[1]}"
        return self._fault(clips, dim)

    @abstractmethod
    def _fault(self, clips: int, dim: int) -> str | None:
        """The same of arrays that have their types and axes."""

    @abstractmethod
    def near(self, vectors_nd: Vectors, queries_qd: Vectors, k: int, effort: int) -> Iterator[Rows]:
        """For every query at least `k` rows, in any order."""

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Exact(Way):
    """Looks at all vectors, where they lie."""

    kind = "exact"
    effort = 1

    @classmethod
    def build(cls, vectors_nd: Vectors) -> Self:
        """Nothing is to be arranged."""
        return cls()

    def _fault(self, clips: int, dim: int) -> str | None:
        return None

    def near(self, vectors_nd: Vectors, queries_qd: Vectors, k: int, effort: int) -> Iterator[Rows]:
        """The rows that are no farther than the k-th, as far as float32 can tell."""
        clips, dim = vectors_nd.shape
        margin = dim * 2.0**-22 + 10.0**-DIGITS
        step = max(1, _AT_ONCE // clips)
        for begin in range(0, len(queries_qd), step):
            part_qd = queries_qd[begin : begin + step]
            blocks = [part_qd @ np.asarray(vectors_nd[rows]).T for rows in row_blocks(clips)]
            for likeness_n in np.concatenate(blocks, axis=1):
                least = np.partition(likeness_n, clips - k)[clips - k]
                yield np.flatnonzero(likeness_n >= least - margin)


@dataclass(frozen=True)
class Cells(Way):
    """Looks at the vectors in the cells whose middles are nearest (IVF): Sivic and Zisserman, ICCV 2003.

    `centroids` float32 (C, D) are the middles; `order` int64 (N,) are the rows cell by cell, and those of
    cell c stand at `begins[c]` to `begins[c + 1]`, int64 (C + 1,). An effort is a number of cells.
    """

    kind = "ivf"
    effort = IvfConfig().nprobe
    dtypes: ClassVar[Mapping[str, tuple[str, int]]] = {
        "centroids": ("<f4", 2),
        "order": ("<i8", 1),
        "begins": ("<i8", 1),
    }

    centroids: NDArray[np.float32]
    order: Rows
    begins: Rows

    @classmethod
    def build(cls, vectors_nd: Vectors) -> Self:
        """As many cells as `IvfConfig` says."""
        index = built(vectors_nd, IvfConfig())
        centroids_cd = index.quantizer.reconstruct_n(0, index.nlist)
        cell_n = index.quantizer.search(vectors_nd, 1)[1][:, 0]
        begins = np.searchsorted(np.sort(cell_n), np.arange(index.nlist + 1))
        return cls(centroids_cd, np.argsort(cell_n, kind="stable"), begins.astype(np.int64))

    def _fault(self, clips: int, dim: int) -> str | None:
        cells = len(self.begins) - 1
        if cells < 1 or self.centroids.shape != (cells, dim) or self.order.shape != (clips,):
            return "the arrays do not fit each other"
        if not _shares_out(self.begins, clips):
            return "begins does not share out all rows"
        inside = (self.order >= 0).all() and (self.order < clips).all()
        if not inside or (np.bincount(self.order, minlength=clips) != 1).any():
            return "order does not name every row once"
        inside = (np.abs(self.centroids) <= 2).all()  # means of unit vectors, but for rounding; NaN is none
        return None if inside else "a centroid is no mean of vectors of length 1"

    def near(self, vectors_nd: Vectors, queries_qd: Vectors, k: int, effort: int) -> Iterator[Rows]:
        """The rows in the nearest cells, and in as many more as it takes."""
        sizes = np.diff(self.begins)
        half_c = (self.centroids**2).sum(axis=1) / 2
        nearness_qc = queries_qd @ self.centroids.T - half_c  # half of the squared distance, but for |query|²
        for ranked in np.argsort(-nearness_qc, axis=1, kind="stable"):
            enough = int(np.searchsorted(np.cumsum(sizes[ranked]), k)) + 1
            parts = [self.order[self.begins[c] : self.begins[c + 1]] for c in ranked[: max(effort, enough)]]
            yield np.concatenate(parts)


@dataclass(frozen=True)
class Graph(Way):
    """Follows the links of a hierarchical graph (HNSW): Malkov and Yashunin, arXiv 1603.09320.

    `start` int64 (3,) are the row to begin with, its level, and M; `links` int32 (L,) the rows that each row
    is linked with, -1 for none, those of row n beginning at `offsets[n]`, int64 (N + 1,): 2 M on level 0, M
    on each further level that it is on. An effort is the size of the list that the search keeps (ef).
    """

    kind = "hnsw"
    effort = HnswConfig().ef_search
    dtypes: ClassVar[Mapping[str, tuple[str, int]]] = {
        "start": ("<i8", 1),
        "offsets": ("<i8", 1),
        "links": ("<i4", 1),
    }

    start: Rows
    offsets: Rows
    links: NDArray[np.int32]

    @classmethod
    def build(cls, vectors_nd: Vectors) -> Self:
        """The graph that `HnswConfig` says, as faiss makes it."""
        config = HnswConfig()
        index = built(vectors_nd, config)  # it owns what `hnsw` shows
        hnsw = index.hnsw
        offsets, links = faiss.vector_to_array(hnsw.offsets), faiss.vector_to_array(hnsw.neighbors)
        start = np.array([hnsw.entry_point, hnsw.max_level, config.m], dtype=np.int64)
        return cls(start, offsets.astype(np.int64), links.astype(np.int32))

    def _fault(self, clips: int, dim: int) -> str | None:
        # A search cannot leave the arrays, and it ends: what else the links are is no danger.
        if self.start.shape != (3,) or self.offsets.shape != (clips + 1,):
            return "the arrays do not fit each other"
        row, level, links = self.start.tolist()
        if not (0 <= row < clips and 0 <= level < _MOST_LEVELS and 1 <= links < _MOST_LINKS):
            return "start names a place that is not there"
        return None if _shares_out(self.offsets, len(self.links)) else "offsets do not share out all links"

    def near(self, vectors_nd: Vectors, queries_qd: Vectors, k: int, effort: int) -> Iterator[Rows]:
        """What the search's list holds in the end; all that Exact finds where that is too little."""
        for query_d in queries_qd:
            found = self._search(vectors_nd, query_d, max(effort, k))
            if len(found) < k:
                found = next(Exact().near(vectors_nd, query_d[None], k, 1))
            yield found

    def _search(self, vectors_nd: Vectors, query_d: Vectors, most: int) -> Rows:
        """Algorithm 5: down the levels, each time from the nearest row so far; above level 0 with ef = 1."""
        row, top, _ = self.start.tolist()
        rows = np.array([row])
        for level in range(top, -1, -1):
            rows = self._search_level(vectors_nd, query_d, int(rows[0]), level, most if level == 0 else 1)
        return rows

    def _search_level(self, vectors_nd: Vectors, query_d: Vectors, row: int, level: int, most: int) -> Rows:
        """Algorithm 2: the nearest rows that greedy steps reach, nearest first, at most so many."""
        likeness = float(vectors_nd[row] @ query_d)
        left, found, seen = [(-likeness, row)], [(likeness, row)], {row}
        while left:
            farness, row = heapq.heappop(left)
            if len(found) == most and -farness < found[0][0]:
                break
            new = [other for other in dict.fromkeys(self._linked(row, level)) if other not in seen]
            seen.update(new)
            for other, likeness in zip(new, (vectors_nd[new] @ query_d).tolist(), strict=True):
                if len(found) < most or likeness > found[0][0]:
                    heapq.heappush(left, (-likeness, other))
                    push = heapq.heappush if len(found) < most else heapq.heapreplace
                    push(found, (likeness, other))
        return np.array([row for _, row in sorted(found, reverse=True)], dtype=np.int64)

    def _linked(self, row: int, level: int) -> list[int]:
        """The rows that a row is linked with on a level."""
        links = int(self.start[2])
        begin = int(self.offsets[row]) + (links * (level + 1) if level else 0)
        end = min(begin + (links if level else 2 * links), int(self.offsets[row + 1]))
        found: list[int] = self.links[begin:end].tolist()
        return [other for other in found if 0 <= other < len(self.offsets) - 1]


def _shares_out(begins: Rows, count: int) -> bool:
    """Whether the places go up from 0 to `count`; differences of what a stranger wrote could overflow."""
    return bool(begins[0] == 0 and begins[-1] == count and (begins[1:] >= begins[:-1]).all())


WAYS: Mapping[Kind, type[Way]] = {way.kind: way for way in (Exact, Cells, Graph)}


def unit_rows(rows_nd: NDArray[np.float32]) -> Vectors:
    """The rows at length 1; a row of zeros stays one."""
    unit_nd = np.empty_like(rows_nd, dtype=np.float32)
    for rows in row_blocks(len(rows_nd)):
        length_n1 = np.linalg.norm(rows_nd[rows].astype(np.float64), axis=1, keepdims=True)
        unit_nd[rows] = rows_nd[rows] / np.where(length_n1 > 0, length_n1, 1)
    return unit_nd


def nearest(
    way: Way, vectors_nd: Vectors, queries_qd: NDArray[np.float32], k: int, effort: int
) -> tuple[Rows, NDArray[np.float64]]:
    """The k rows nearest to each query by cosine, 1 <= k <= N, and the cosine, (Q, k), nearest first.

    A cosine is given to six decimals, and of equal ones the lower row comes first.
    """
    queries_qd = unit_rows(queries_qd)
    rows_qk = np.zeros((len(queries_qd), k), dtype=np.int64)
    likeness_qk = np.zeros((len(queries_qd), k))
    found = way.near(vectors_nd, queries_qd, k, effort)
    for place, (rows, query_d) in enumerate(zip(found, queries_qd, strict=True)):
        likeness = _likeness(vectors_nd, rows, query_d)
        best = np.lexsort((rows, -likeness))[:k]
        rows_qk[place], likeness_qk[place] = rows[best], likeness[best]
    return rows_qk, likeness_qk


def _likeness(vectors_nd: Vectors, rows: Rows, query_d: Vectors) -> NDArray[np.float64]:
    """The cosines of some rows with a query; sums are of a row alone, so that equal rows are equally near."""
    blocks = row_blocks(len(rows))
    sums = [(vectors_nd[rows[block]].astype(np.float64) * query_d).sum(axis=1) for block in blocks]
    likeness: NDArray[np.float64] = np.concatenate(sums)
    return likeness.clip(-1, 1).round(DIGITS) + 0.0  # no -0
