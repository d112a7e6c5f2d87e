"""A first look at all cosines in bfloat16, where the processor multiplies it much faster than float32."""

import functools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_skeleton.evaluation.neighbours.directions import Directions, Shifted, blocks
from ssl_skeleton.evaluation.neighbours.indexes import EXACT_ERROR, ROUNDING, Near

_HALF = 2.0**-8  # of the last place of a bfloat16, in proportion to its value
_GROUP = 32  # rows of which the best one stands for all
_BLOCK = 20_000_000  # cosines looked at at once
_PIECES = 3  # bfloat16 numbers that add up to a float32 one
_NEVER = -1e30
_NORM_ERROR = 1.001  # more than float32 may be off by


@functools.cache
def is_fast() -> bool:
    """Whether this processor has AMX, matrix units for bfloat16."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_bf16" in cpuinfo.read_text()


class Bf16Index:
    """Looks up the rows (G, D) whose cosine with a query is largest, with a wide bound for each.

    The bounds hold what rounding took from these very vectors, which is less than what it may take from any:
    of a = a' + r and b = b' + s, the product differs from that of a' and b' by at most |r| |b| + |a'| |s|.
    """

    def __init__(self, gallery: Directions) -> None:
        self._mean_d, rows = gallery.mean(), len(gallery)
        b = Shifted(gallery, self._mean_d)
        self._usual = float(np.median(b.share))
        share_g = torch.from_numpy(b.share - self._usual)
        self._longest, self._largest = float(b.norm.max()), float(share_g.abs().max())
        rounded_gd, lost_g = _rounded(b.rows)
        self._lost = float(lost_g.max())
        self._groups = -(-rows // _GROUP)
        self._b_dg = torch.zeros(gallery.dim + _PIECES, self._groups * _GROUP, dtype=torch.bfloat16)
        self._b_dg[:-_PIECES, :rows] = rounded_gd.T
        for piece in range(_PIECES):
            self._b_dg[piece - _PIECES, :rows] = share_g.bfloat16()
            share_g = share_g - share_g.bfloat16().double()
        self._b_dg[-_PIECES, rows:] = _NEVER

    @property
    def most(self) -> int:
        """How many rows it looks up at once with profit."""
        return self._groups // 4

    def search(self, queries: Directions, count: int) -> Near:
        """The `count` rows nearest to each query (N, D)."""
        a = Shifted(queries, self._mean_d)
        rounded_nd, lost_n = _rounded(a.rows)
        asked_nd = torch.cat([rounded_nd, rounded_nd.new_ones(len(queries), _PIECES)], dim=1)
        value_nc, rows_nc = np.empty((len(queries), count)), np.empty((len(queries), count), np.int64)
        step = max(1, min(len(queries), _BLOCK // self._b_dg.shape[1]))
        products_ng = torch.empty(step, self._b_dg.shape[1], dtype=torch.bfloat16)
        for begin in range(0, len(queries), step):
            part = slice(begin, begin + step)
            value_nc[part], rows_nc[part] = self._largest_of(asked_nd[part], count, products_ng)
        norm_n, steps = a.norm + lost_n, queries.dim + 10
        error_n = lost_n * self._longest + norm_n * self._lost + EXACT_ERROR
        error_n += steps * ROUNDING * (norm_n * (self._longest + self._lost) + self._largest)
        most_nc = (a.share + self._usual + error_n)[:, None] + value_nc + _HALF * np.abs(value_nc)
        return Near(rows_nc, most_nc)

    def _largest_of(
        self, asked_nd: Tensor, count: int, products_ng: Tensor
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The largest products with each query, and their rows; all products are written to `products_ng`.

        They lie in the groups with the largest ones: in any other, none is larger than one of each of those.
        """
        value_ng = torch.mm(asked_nd, self._b_dg, out=products_ng[: len(asked_nd)])
        value_nlg = value_ng.view(len(asked_nd), _GROUP, self._groups)
        group_nc = _largest(value_nlg.amax(dim=1).float().numpy(), count)
        places = torch.from_numpy(group_nc)[:, None].expand(-1, _GROUP, -1)
        value_nl = value_nlg.gather(2, places).flatten(1).float().numpy()
        place_nc = _largest(value_nl, count)
        value_nc = np.take_along_axis(value_nl, place_nc, axis=1)
        row_nc = place_nc // count * self._groups + np.take_along_axis(group_nc, place_nc % count, axis=1)
        order_nc = np.argsort(-value_nc, axis=1)
        return np.take_along_axis(value_nc, order_nc, axis=1), np.take_along_axis(row_nc, order_nc, axis=1)


def _largest(value_ng: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The places of the largest values of each row (N, G), in any order, (N, count)."""
    places: NDArray[np.int64] = np.argpartition(value_ng, -count, axis=1)[:, -count:]
    return places


def _rounded(rows_nd: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
    """Rows (N, D) in bfloat16, and how long what was lost is, (N,)."""
    rounded_nd = torch.empty(rows_nd.shape, dtype=torch.bfloat16)
    lost_n = np.empty(len(rows_nd))
    for part in blocks(*rows_nd.shape):
        rounded_nd[part] = rows_nd[part]
        lost_n[part] = (rows_nd[part] - rounded_nd[part]).norm(dim=1) * _NORM_ERROR
    return rounded_nd, lost_n
