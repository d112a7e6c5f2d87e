"""Re-ranking by k-reciprocal encoding (Zhong et al., CVPR 2017, arXiv 1701.08398), sparse throughout."""

import itertools

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from ssl_skeleton.config import Config
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.neighbours.directions import Directions, Rows, ragged
from ssl_skeleton.evaluation.neighbours.gallery import Gallery, Neighbours, nearest_others
from ssl_skeleton.evaluation.neighbours.indexes import EXACT, AnyIndex

_MOST_BYTES = 4 << 30  # that the encodings may take
_BLOCK = 1 << 22  # numbers worked on at once
_DIGITS = 12  # of a distance, so that the order of sums makes no difference


class ReciprocalConfig(Config):
    """The encoding, with the paper's values (Section 4.2).

    k1   how many others are neighbours of a clip, of which those count that have it for a neighbour, too
    k2   over how many neighbours, besides the clip itself, encodings are averaged
    own  the share of the original distance in the final one, lambda in the paper
    """

    k1: int = Field(default=20, ge=1)
    k2: int = Field(default=6, ge=0)
    own: float = Field(default=0.3, ge=0, le=1)


def reranked(
    gallery_gd: Rows, queries_nd: Rows, k: int, config: ReciprocalConfig, index: AnyIndex = EXACT
) -> Neighbours:
    """The k nearest rows of a gallery (G, D) for each query (N, D), after re-ranking.

    Gallery and queries are encoded together, as is usual: what is near a query hangs on the other queries.
    Raises UserError when the encodings would take too much memory.
    """
    first = Gallery(gallery_gd, index).nearest(queries_nd, k)
    encoded = _Encoded(np.concatenate([gallery_gd, queries_nd]), config, index)
    query_n = np.arange(len(gallery_gd), len(gallery_gd) + len(queries_nd))
    return encoded.nearest(query_n, len(gallery_gd), first)


def reranked_others(rows_nd: Rows, k: int, config: ReciprocalConfig, index: AnyIndex = EXACT) -> Neighbours:
    """The k nearest of each row (N, D) among the others, after re-ranking; UserError as `reranked`."""
    first = nearest_others(rows_nd, k, index)
    return _Encoded(rows_nd, config, index).nearest(np.arange(len(rows_nd)), len(rows_nd), first)


class _Encoded:
    """Rows (A, D) and their encodings: sparse rows (A, A) of how near their k-reciprocal neighbours are."""

    def __init__(self, rows_ad: Rows, config: ReciprocalConfig, index: AnyIndex) -> None:
        self.directions, self.config = Directions(rows_ad), config
        most = len(rows_ad) - 1
        k1, k2 = min(config.k1, most), min(config.k2, most)
        near_ak = nearest_others(rows_ad, max(k1, k2, 1), index).rows
        sets = reciprocal_sets(near_ak[:, :k1])
        around = links(near_ak[:, :k2])
        _check_memory(around, sets)
        a, other = sets.nonzero()
        weights = np.exp(self.directions.cosines(self.directions, a, other) - 1)  # (7): exp(-distance)
        encodings = sparse.csr_array((weights, (a, other)), shape=sets.shape)
        self.encodings = sparse.csr_array(around @ encodings) / (k2 + 1)  # (11)
        self.sums_a = self.encodings.sum(axis=1)

    def nearest(self, query_n: NDArray[np.int64], gallery: int, first: Neighbours) -> Neighbours:
        """The k nearest of the first G rows for the rows `query_n`, without the query itself.

        `first` are those before re-ranking. Where encodings have nothing in common, the distance is as large
        as it can be, but for the share of the original one: of these rows, none can come before k of `first`.
        """
        found = Neighbours(np.empty_like(first.rows), np.empty_like(first.likeness))
        columns = sparse.csc_array(self.encodings[:gallery])
        step = max(1, _BLOCK // gallery)
        for begin in range(0, len(query_n), step):
            part = slice(begin, begin + step)
            shared = self._shared(query_n[part], gallery, columns)
            ranked = self._ranked(query_n[part], shared, first.rows[part])
            found.rows[part], found.likeness[part] = ranked.rows, ranked.likeness
        return found

    def _shared(
        self, query_n: NDArray[np.int64], gallery: int, columns: sparse.csc_array
    ) -> NDArray[np.float64]:
        """What the encodings of queries and gallery have in common, (N, G): the sum of their minima (8)."""
        rows = self.encodings[query_n]
        n_e = np.arange(len(query_n)).repeat(np.diff(rows.indptr))
        size_e = np.diff(columns.indptr)[rows.indices]
        shared_b = np.zeros(len(query_n) * gallery)
        for part in _parts(size_e):
            place_p = ragged(columns.indptr[rows.indices[part]], size_e[part])
            bin_p = n_e[part].repeat(size_e[part]) * gallery + columns.indices[place_p]
            least_p = np.minimum(rows.data[part].repeat(size_e[part]), columns.data[place_p])
            shared_b += np.bincount(bin_p, least_p, minlength=len(shared_b))
        return shared_b.reshape(len(query_n), gallery)

    def _ranked(
        self, query_n: NDArray[np.int64], shared_ng: NDArray[np.float64], first_nk: NDArray[np.int64]
    ) -> Neighbours:
        """The k nearest of those that have anything in common with a query, or are in `first`."""
        candidate_ng = shared_ng > 0
        np.put_along_axis(candidate_ng, first_nk, True, axis=1)
        own = query_n < shared_ng.shape[1]
        candidate_ng[np.flatnonzero(own), query_n[own]] = False
        n_p, row_p = candidate_ng.nonzero()
        shared_p = shared_ng[n_p, row_p]
        jaccard_p = 1 - shared_p / (self.sums_a[query_n[n_p]] + self.sums_a[row_p] - shared_p)  # (9), (10)
        cosine_p = self.directions.cosines(self.directions, query_n[n_p], row_p)
        distance_p = (1 - self.config.own) * jaccard_p + self.config.own * (1 - cosine_p)  # (12)
        distance_p = distance_p.round(_DIGITS)
        order_p = np.lexsort((row_p, distance_p, n_p))
        begin_n = np.searchsorted(n_p, np.arange(len(query_n)))
        best_nk = order_p[begin_n[:, None] + np.arange(first_nk.shape[1])]
        return Neighbours(row_p[best_nk], 1 - distance_p[best_nk])


def links(near_ak: NDArray[np.int64]) -> sparse.csr_array:
    """Who is whose neighbour: 1 in row a for a itself and for its neighbours (A, k)."""
    rows, k = near_ak.shape
    every_ak = np.column_stack([np.arange(rows), near_ak])
    begin = np.arange(rows + 1) * (k + 1)
    matrix = sparse.csr_array((np.ones(every_ak.size, np.int32), every_ak.ravel(), begin), shape=(rows, rows))
    matrix.sort_indices()
    return matrix


def reciprocal_sets(near_ak: NDArray[np.int64]) -> sparse.csr_array:
    """The sets R* of the paper (2, 3), as ones in the row of each clip, from its k1 nearest others (A, k1).

    R(a) are the neighbours of a, and itself, that have a for a neighbour as well. To these come those of q in
    R(a) by half of k1, where at least two thirds of them are in R(a).
    """
    near = links(near_ak)
    half = links(near_ak[:, : (near_ak.shape[1] + 1) // 2])
    mutual, mutual_half = near.multiply(near.T).tocsr(), half.multiply(half.T).tocsr()
    common = mutual.multiply(mutual @ mutual_half.T).tocoo()
    size_a = mutual_half.sum(axis=1)
    joins_p = 3 * common.data >= 2 * size_a[common.col]
    joins = sparse.csr_array(
        (np.ones(joins_p.sum(), np.int32), (common.row[joins_p], common.col[joins_p])), shape=near.shape
    )
    sets = sparse.csr_array(mutual + joins @ mutual_half)
    sets.data[:] = 1
    sets.sort_indices()
    return sets


def _check_memory(around: sparse.csr_array, sets: sparse.csr_array) -> None:
    """Raise UserError when averaged encodings may have more numbers than fit; none is made for that."""
    most = int((around @ np.diff(sets.indptr)).sum()) * 12
    if most > _MOST_BYTES:
        raise UserError(
            f"rerank: the encodings of {sets.shape[0]} clips could take {most / 2**30:.0f} GiB; go without "
            "re-ranking, or choose a smaller reciprocal.k1 or reciprocal.k2"
        )


def _parts(size_s: NDArray[np.int64]) -> list[slice]:
    """Slices of pieces that are about a block large together."""
    cuts = np.flatnonzero(np.diff(size_s.cumsum(dtype=np.int64) // _BLOCK)) + 1
    ends = [0, *cuts.tolist(), len(size_s)]
    return [slice(one, other) for one, other in itertools.pairwise(ends)]
