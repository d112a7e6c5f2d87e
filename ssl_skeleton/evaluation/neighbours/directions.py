"""Directions of rows, whose cosines are the same to the last bit however they are computed."""

from collections.abc import Iterator
from copy import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[np.float32]

_PLACES = 2.0**26
_BLOCK = 1 << 19  # numbers worked on at once


class Directions:
    """The unit vectors of rows (N, D), rounded to whole multiples of 2^-26; rows of zeros stay such.

    A product of two of their numbers is a multiple of 2^-52, and no sum of such products comes to 2, as
    Cauchy and Schwarz tell: float64 holds them all exactly. So the inner product of two directions is one
    number, whatever else is computed beside it, in which order, by how many threads, and copies of a row
    have the same one. From the cosine of the rows it differs by about 1e-8.
    """

    def __init__(self, rows_nd: Rows) -> None:
        self._whole_nd = torch.empty(rows_nd.shape, dtype=torch.int32)
        for part in blocks(*rows_nd.shape):
            x_nd = torch.from_numpy(np.ascontiguousarray(rows_nd[part])).double()
            norm_n1 = x_nd.norm(dim=1, keepdim=True)
            self._whole_nd[part] = x_nd.mul_(_PLACES / norm_n1.masked_fill_(norm_n1 == 0, 1)).round_()

    def __len__(self) -> int:
        return len(self._whole_nd)

    @property
    def dim(self) -> int:
        """D, of how many numbers a row is."""
        return self._whole_nd.shape[1]

    def at(self, place_n: NDArray[np.int64]) -> "Directions":
        """Some of them (N,)."""
        some = copy(self)
        some._whole_nd = self._whole_nd.index_select(0, torch.from_numpy(place_n))
        return some

    def unit(self, place: slice | NDArray[np.int64]) -> Tensor:
        """Some of the unit vectors (N, D), in float64."""
        if isinstance(place, slice):
            whole_nd = self._whole_nd[place]
        else:
            whole_nd = self._whole_nd.index_select(0, torch.from_numpy(place))
        return whole_nd.double().div_(_PLACES)

    def mean(self) -> Tensor:
        """The mean (D,) of the unit vectors."""
        sums = [self.unit(part).sum(dim=0) for part in blocks(len(self), self.dim)]
        return torch.stack(sums).sum(dim=0) / len(self)

    def cosines(
        self, others: "Directions", n_p: NDArray[np.int64], row_p: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """The cosines (P,) of the rows `n_p` (P,) with the rows `row_p` (P,) of others."""
        cosine_p = np.empty(len(n_p))
        for part in blocks(len(n_p), self.dim):
            cosine_p[part] = self.unit(n_p[part]).mul_(others.unit(row_p[part])).sum(dim=1)
        return cosine_p

    def cosines_with(self, others: "Directions", row_nc: NDArray[np.int64]) -> NDArray[np.float64]:
        """The cosines (N, C) of every row with C rows of others."""
        clips, count = row_nc.shape
        cosine_nc = np.empty(row_nc.shape)
        for part in blocks(clips, count * self.dim):
            place_f = torch.from_numpy(row_nc[part].ravel())
            other_ncd = others._whole_nd.index_select(0, place_f).double().view(-1, count, self.dim)
            cosine_nc[part] = torch.bmm(other_ncd, self.unit(part)[:, :, None])[:, :, 0].div_(_PLACES)
        return cosine_nc


class Shifted:
    """Directions (N, D) less a mean one, in float32, and their lengths (N,) without rounding.

    With a and b two directions, and a' and b' what the shift makes of them, their product is that of a' and
    b' and half of |a|² - |a'|² + |b|² - |b'|²: the `share` of each. Products of a' and b' round in proportion
    to what directions differ by: those that all lie near each other are told apart as well as others.
    """

    def __init__(self, directions: Directions, mean_d: Tensor) -> None:
        rows, dim = len(directions), directions.dim
        self.rows = torch.empty(rows, dim)
        self.norm, self.share = np.empty(rows), np.empty(rows)
        for part in blocks(rows, dim):
            a_nd = directions.unit(part)
            square_n = torch.linalg.vecdot(a_nd, a_nd)
            a_nd.sub_(mean_d)
            shifted_n = torch.linalg.vecdot(a_nd, a_nd)
            self.rows[part], self.norm[part] = a_nd, shifted_n.sqrt()
            self.share[part] = (square_n - shifted_n) / 2


def blocks(rows: int, numbers: int) -> Iterator[slice]:
    """Slices of rows, each of a row or of as many as together take half a million numbers."""
    step = max(1, _BLOCK // max(1, numbers))
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def ragged(begin_s: NDArray[np.int64], size_s: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places begin, begin + 1, ... of pieces of these sizes (S,), one piece after another."""
    end_s = size_s.cumsum(dtype=np.int64)
    shift_s: NDArray[np.int64] = begin_s - end_s + size_s
    place_p: NDArray[np.int64] = np.arange(size_s.sum(dtype=np.int64)) + shift_s.repeat(size_s)
    return place_p


def first_copies(rows_nd: Rows) -> NDArray[np.int64]:
    """For every row the first one that is the same, (N,)."""
    first: dict[bytes, int] = {}
    plain_nd = np.asarray(rows_nd, dtype=np.float32) + np.float32(0)  # -0 is 0
    return np.array([first.setdefault(row.tobytes(), n) for n, row in enumerate(plain_nd)], np.int64)
