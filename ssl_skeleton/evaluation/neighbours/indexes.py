"""Faiss's indexes of directions, each with a bound on what it leaves out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_skeleton.config import Config
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.neighbours.directions import Directions, Rows, Shifted, blocks

ROUNDING = 2.0**-24  # the unit roundoff of float32
EXACT_ERROR = 1e-14  # of what is computed in float64


class ExactConfig(Config):
    """Every query is compared with every row."""

    name: Literal["exact"] = "exact"


class IvfConfig(Config):
    """Rows lie in `nlist` cells of k-means, and a query is compared with those in the `nprobe` nearest.

    As Sivic and Zisserman (ICCV 2003) look up words of images; faiss's IndexIVFFlat. By default there are
    about as many cells as rows in each; where there are fewer than `nprobe`, all are searched.
    """

    name: Literal["ivf"] = "ivf"
    nlist: int | None = Field(default=None, ge=1)
    nprobe: int = Field(default=8, ge=1)


class HnswConfig(Config):
    """Rows are nodes of a graph in layers, each linked to about `m` near ones, along which a query walks.

    Malkov and Yashunin, arXiv 1603.09320; faiss's IndexHNSWFlat. It keeps the best `ef_search` rows while it
    walks, and `ef_construction` while the graph is built; that one thread does, for the same graph each time.
    """

    name: Literal["hnsw"] = "hnsw"
    m: int = Field(default=32, ge=2)
    ef_construction: int = Field(default=40, ge=1)
    ef_search: int = Field(default=64, ge=1)


EXACT = ExactConfig()
AnyIndex = Annotated[ExactConfig | IvfConfig | HnswConfig, Field(discriminator="name")]


@dataclass(frozen=True)
class Near:
    """Rows that may be nearest to N queries, (N, C), and the most that the cosine of each can be, (N, C).

    Each next one's is less, and no row that is left out has a greater cosine than the last `most`.
    """

    rows: NDArray[np.int64]
    most: NDArray[np.float64]


class FlatIndex:
    """Looks up the rows of a gallery (G, D) whose cosine with a query is largest, by faiss's IndexFlatIP."""

    def __init__(self, gallery: Directions) -> None:
        self._mean_d = gallery.mean()
        b = Shifted(gallery, self._mean_d)
        self._usual = float(np.median(b.share))
        share_g = b.share - self._usual  # what is left is small, and so is what float32 takes from it
        self._longest, self._largest = float(b.norm.max()), float(np.abs(share_g).max())
        self._faiss = built(np.column_stack([b.rows, share_g.astype(np.float32)]), EXACT)

    def search(self, queries: Directions, count: int) -> Near:
        """The `count` rows nearest to each query (N, D)."""
        a = Shifted(queries, self._mean_d)
        asked_nd = np.column_stack([a.rows, np.ones(len(queries), np.float32)])
        value_nc, rows_nc = self._faiss.search(asked_nd, count)
        steps = queries.dim + 10  # roundings on the way to a product, those of its factors among them
        error_n = steps * ROUNDING * (a.norm * self._longest + self._largest) + EXACT_ERROR
        return Near(rows_nc, (a.share + self._usual + error_n)[:, None] + value_nc)


class PartIndex:
    """Looks up rows of a gallery (G, D) that are near to a query, and may miss some that are nearer.

    Which rows it finds for a query hangs on the gallery alone, not on other queries nor on threads.
    """

    def __init__(self, gallery: Directions, config: IvfConfig | HnswConfig) -> None:
        self._faiss = built(gallery.unit(slice(None)).float().numpy(), config)

    def search(self, queries: Directions, count: int) -> NDArray[np.int64]:
        """Up to `count` rows near to each query (N, D), -1 for none."""
        asked_nd = queries.unit(slice(None)).float().numpy()
        found_nc: NDArray[np.int64]
        if isinstance(self._faiss, faiss.IndexHNSWFlat):
            found_nc = self._faiss.search(asked_nd, count)[1]
            return found_nc
        centres_ld = self._faiss.quantizer.reconstruct_n(0, self._faiss.nlist).astype(np.float64)
        cells_np = np.empty((len(asked_nd), self._faiss.nprobe), np.int64)
        for part in blocks(len(asked_nd), len(centres_ld)):  # in float64: no rounding that hangs on a block
            far_nl = (centres_ld**2).sum(axis=1) - 2 * asked_nd[part] @ centres_ld.T
            cells_np[part] = far_nl.argsort(axis=1, kind="stable")[:, : self._faiss.nprobe]
        found_nc = self._faiss.search_preassigned(asked_nd, count, cells_np, None)[1]
        return found_nc


def built(rows_gd: Rows, config: AnyIndex) -> Any:
    """An index of faiss; by the inner product where it is exact, otherwise by the distance."""
    rows, dim = rows_gd.shape
    index: Any
    if isinstance(config, ExactConfig):
        index = faiss.IndexFlatIP(dim)
        index.add(rows_gd)
        return index
    if isinstance(config, HnswConfig):
        index = faiss.IndexHNSWFlat(dim, config.m)
        index.hnsw.efConstruction, index.hnsw.efSearch = config.ef_construction, config.ef_search
    else:
        nlist = round(rows**0.5) if config.nlist is None else config.nlist
        if nlist > rows:
            raise UserError(
                f"index.nlist: {nlist} cells are more than the {rows} different rows; choose fewer"
            )
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, nlist)
        index.nprobe = min(config.nprobe, nlist)
        index.cp.min_points_per_centroid = 1  # fewer are no reason for a warning
    with _one_thread():
        index.train(rows_gd)
        index.add(rows_gd)
    return index


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let faiss work alone: several threads may come to another graph, and other cells, every time."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
