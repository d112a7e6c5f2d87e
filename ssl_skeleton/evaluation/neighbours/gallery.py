"""Nearest neighbours by cosine, the same ones in the same order every time."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.evaluation.neighbours.bf16_index import Bf16Index, is_fast
from ssl_skeleton.evaluation.neighbours.directions import Directions, Rows, blocks, first_copies, ragged
from ssl_skeleton.evaluation.neighbours.indexes import EXACT, AnyIndex, ExactConfig, FlatIndex, PartIndex

_MARGIN = 24  # how many more than k are asked for at first
_LARGE = 4096  # rows of a gallery that is worth a first look
_WIDER = 4  # how many times as many are asked for where that was too few


@dataclass(frozen=True)
class Neighbours:
    """The rows of a gallery nearest to each of N queries, (N, k), nearest first, and how near they are.

    The likeness is the cosine, or what re-ranking makes of it: 1 is the same direction.
    """

    rows: NDArray[np.int64]
    likeness: NDArray[np.float64]

    def at(self, place: NDArray[np.int64]) -> "Neighbours":
        """Those of some queries (N,)."""
        return Neighbours(self.rows[place], self.likeness[place])

    def keep(
        self, n: NDArray[np.int64], rows_nc: NDArray[np.int64], likeness_nc: NDArray[np.float64]
    ) -> None:
        """Let those of the queries `n` (N,) be the nearest of these rows (N, C), C >= k, in any order."""
        order_nk = np.lexsort((rows_nc, -likeness_nc), axis=1)[:, : self.rows.shape[1]]
        self.rows[n] = np.take_along_axis(rows_nc, order_nk, axis=1)
        self.likeness[n] = np.take_along_axis(likeness_nc, order_nk, axis=1)


class Gallery:
    """Rows (G, D) among which queries find the nearest ones.

    An index proposes candidates, whose cosines are then computed anew (`Directions`). Where a row that it
    left out may be as near as the last one that counts, it is asked for more. Equally near ones come in the
    order of the rows. Copies are searched once, and then stand side by side.

    An index that is not exact finds what it finds, in that same order; where it finds fewer than it should,
    the exact one does the work.
    """

    def __init__(self, rows_gd: Rows, index: AnyIndex = EXACT) -> None:
        self._first_g = first_copies(rows_gd)
        self._distinct = np.flatnonzero(self._first_g == np.arange(len(rows_gd)))
        self._directions = Directions(rows_gd[self._distinct])
        self._part = None if isinstance(index, ExactConfig) else PartIndex(self._directions, index)

    def __len__(self) -> int:
        return len(self._first_g)

    @cached_property
    def _all(self) -> FlatIndex:
        return FlatIndex(self._directions)

    @cached_property
    def _first_look(self) -> Bf16Index | None:
        """What sorts out most rows at once, where that is faster."""
        return Bf16Index(self._directions) if is_fast() and len(self._directions) >= _LARGE else None

    def nearest(self, queries_nd: Rows, k: int) -> Neighbours:
        """The k nearest rows of each query (N, D), 1 <= k <= G."""
        first_n = first_copies(queries_nd)
        asked = np.flatnonzero(first_n == np.arange(len(first_n)))
        found = self._nearest_distinct(Directions(queries_nd[asked]), min(k, len(self._distinct)))
        found = Neighbours(self._distinct[found.rows], found.likeness)
        if len(self._distinct) < len(self):
            found = self._with_copies(found, k)
        return found.at(np.searchsorted(asked, first_n))

    def _nearest_distinct(self, queries: Directions, k: int) -> Neighbours:
        """The same among rows of which none is a copy."""
        shape = len(queries), k
        found = Neighbours(np.empty(shape, np.int64), np.empty(shape))
        left_n = np.arange(len(queries))
        if self._part is not None:
            left_n = self._settle_partly(self._part, queries, found)
        elif self._first_look is not None and 2 * k + _MARGIN <= self._first_look.most:
            left_n = self._settle(self._first_look, queries, left_n, 2 * k + _MARGIN, found)
        count = k + _MARGIN
        while len(left_n):
            count = min(count, len(self._directions))
            left_n = self._settle(self._all, queries, left_n, count, found)
            count *= _WIDER
        return found

    def _settle(
        self,
        index: FlatIndex | Bf16Index,
        queries: Directions,
        left_n: NDArray[np.int64],
        count: int,
        found: Neighbours,
    ) -> NDArray[np.int64]:
        """Write to `found` what is nearest of the `count` rows that an index proposes for some queries.

        Gives those of them for which a row that it leaves out may be as near.
        """
        k, open_n = found.rows.shape[1], []
        for part in blocks(len(left_n), count):
            n = left_n[part]
            asked = queries.at(n)
            near = index.search(asked, count)
            cosine_nc = np.full(near.rows.shape, -np.inf)
            cosine_nc[:, :k] = asked.cosines_with(self._directions, near.rows[:, :k])
            # Of those further behind, few can be nearer than the last one of these.
            place, column = (near.most[:, k:] >= cosine_nc[:, :k].min(axis=1, keepdims=True)).nonzero()
            column += k
            cosine_nc[place, column] = asked.cosines(self._directions, place, near.rows[place, column])
            found.keep(n, near.rows, cosine_nc)
            open_n.append(n[near.most[:, -1] >= found.likeness[n, -1]])
        return np.concatenate(open_n) if count < len(self._directions) else left_n[:0]

    def _settle_partly(self, index: PartIndex, queries: Directions, found: Neighbours) -> NDArray[np.int64]:
        """Write to `found` what an index finds that may miss some; gives the queries that then lack any."""
        count = min(found.rows.shape[1] + _MARGIN, len(self._directions))
        for part in blocks(len(queries), count):
            n = np.arange(part.start, part.stop)
            asked = queries.at(n)
            rows_nc = index.search(asked, count)
            cosine_nc = asked.cosines_with(self._directions, np.maximum(rows_nc, 0))
            found.keep(n, rows_nc, np.where(rows_nc < 0, -np.inf, cosine_nc))
        return np.flatnonzero(found.rows[:, -1] < 0)

    def _with_copies(self, found: Neighbours, k: int) -> Neighbours:
        """The k nearest rows, when the nearest of those are known that are first copies."""
        by_first = np.argsort(self._first_g, kind="stable")  # copies side by side, the first one first
        begin_nk = np.searchsorted(self._first_g[by_first], found.rows)
        copies_nk = np.minimum(np.bincount(self._first_g)[found.rows], k)
        rows_nk, cosine_nk = np.empty((len(found.rows), k), np.int64), np.empty((len(found.rows), k))
        for part in blocks(len(found.rows), int(copies_nk.sum(axis=1).max())):
            copies_f = copies_nk[part].ravel()
            row_p = by_first[ragged(begin_nk[part].ravel(), copies_f)]
            n_p = np.arange(len(copies_nk[part])).repeat(copies_nk[part].sum(axis=1))
            cosine_p = found.likeness[part].ravel().repeat(copies_f)
            order_p = np.lexsort((row_p, -cosine_p, n_p))
            first_n = np.searchsorted(n_p, np.arange(len(copies_nk[part])))
            order_nk = order_p[first_n[:, None] + np.arange(k)]
            rows_nk[part], cosine_nk[part] = row_p[order_nk], cosine_p[order_nk]
        return Neighbours(rows_nk, cosine_nk)


def nearest_others(rows_nd: Rows, k: int, index: AnyIndex = EXACT) -> Neighbours:
    """The k nearest of each row among the others, 1 <= k < N."""
    found = Gallery(rows_nd, index).nearest(rows_nd, k + 1)
    others_nk = found.rows != np.arange(len(rows_nd))[:, None]
    others_nk[others_nk.all(axis=1), -1] = False  # more than k are as near as the row itself
    return Neighbours(found.rows[others_nk].reshape(-1, k), found.likeness[others_nk].reshape(-1, k))


def recall(found: Neighbours, exact: Neighbours) -> float:
    """The share of the true neighbours that an index finds; one as near as the last of them is as good."""
    return float((found.likeness >= exact.likeness[:, -1:]).mean())


def is_exact(index: AnyIndex) -> bool:
    """Whether an index misses no neighbour by its nature."""
    return isinstance(index, ExactConfig)
