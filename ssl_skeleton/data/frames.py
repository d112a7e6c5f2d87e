"""The frames of stores, wherever they are kept: rows that a gather reads by their numbers."""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_skeleton.data.recording import METRES
from ssl_skeleton.data.repair import RepairConfig, repair
from ssl_skeleton.data.store import Store, row_blocks
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout
from ssl_skeleton.skeleton.remap import remap, remap_matrix

Residence = Literal["device", "host", "mapped"]


@dataclass(frozen=True)
class Part:
    """What one store gives: its frames, still on disk unless `repaired`, and how its joints are mapped.

    `matrix` (V of the layout, V of the store) is None where they are the same. `at_zero` are the joints of
    the layout that are present though they are zero.
    """

    store: Store
    x_rvc: Tensor
    tracks: NDArray[np.int64]
    repaired: bool
    matrix: NDArray[np.float32] | None
    at_zero: Sequence[int]

    def __len__(self) -> int:
        return len(self.x_rvc)

    def rows(self, row_s: slice | Tensor) -> Tensor:
        """Some of its frames with the joints of the layout, (S, V, C)."""
        x_svc = self.x_rvc[row_s]
        return x_svc if self.matrix is None else torch.from_numpy(remap(x_svc.numpy(), self.matrix))


def read_part(store: Store, layout: Layout, mend: RepairConfig) -> Part:
    """What a store gives for `layout`, repaired as `mend` says."""
    matrix = remap_matrix(store.layout, layout) if layout != store.layout else None
    part = Part(store, _as_tensor(store.frames_rvc), store.tracks, False, matrix, ())
    spatial, root = spatial_of(store.meta.coordinates), store.layout.index(store.layout.root)
    if spatial == 3 and store.root_at_zero:
        at_zero = [root] if matrix is None else np.flatnonzero(matrix[:, root]).tolist()
        part = replace(part, at_zero=at_zero)
    if mend == RepairConfig():
        return part
    for rows in row_blocks(len(part)):
        _check_finite(part, rows)
    x_rvc, tracks = repair(store.frames_rvc, store.tracks, mend, spatial)
    return replace(part, x_rvc=torch.from_numpy(x_rvc), tracks=tracks, repaired=True)


def spatial_of(coordinates: Sequence[str]) -> int:
    """How many of the coordinates are a place in space."""
    return sum(name in METRES for name in coordinates)


class Frames(ABC):
    """R rows, each a body in one frame: V joints with C coordinates. The rows of all parts are counted on.

    `seen_r` bool (R,) tells whether the body is seen, `partly_r` bool (R,) whether it is, but not all of its
    joints are. A joint is seen when any coordinate of it is not zero, or when it is `at_zero` in its part and
    the body is seen.
    """

    seen_r: Tensor
    partly_r: Tensor

    def __init__(self, parts: Sequence[Part], joints: int) -> None:
        self._ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self._at_zero_pv = torch.zeros(len(parts), joints, dtype=torch.bool)
        for part, at_zero_v in zip(parts, self._at_zero_pv, strict=True):
            at_zero_v[list(part.at_zero)] = True

    @property
    def device(self) -> torch.device:
        """Where rows are read."""
        return self.seen_r.device

    @abstractmethod
    def lookup(self, row_s: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (S,) as a table (L, V, C), and where in it each of them stands, int64 (S,)."""

    def joints(self, row_s: Tensor) -> tuple[Tensor, Tensor]:
        """The rows (S,) themselves, (S, V, C), and which of their joints are seen, bool (S, V)."""
        table_lvc, place_s = self.lookup(row_s)
        x_svc = table_lvc.index_select(0, place_s)
        seen_sv = _any_coordinate(x_svc)
        if self._some_at_zero:
            at_zero_sv = self._at_zero_pv[torch.bucketize(row_s, self._ends, right=True)]
            seen_sv |= at_zero_sv & self.seen_r[row_s, None]
        return x_svc, seen_sv

    def any_partly(self, row: Tensor) -> bool:
        """Whether a body is partly seen in any of the rows, which may have any shape."""
        return self._some_partly and bool(self.partly_r[row].any())

    def numpy(self, rows: slice, coordinates: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The first coordinates of some rows, (S, V, coordinates), and which joints are seen, (S, V)."""
        x_svc, seen_sv = self.joints(torch.arange(rows.start, rows.stop))
        return x_svc[..., :coordinates].numpy(), seen_sv.numpy()

    @cached_property
    def _some_partly(self) -> bool:
        return bool(self.partly_r.any())

    @cached_property
    def _some_at_zero(self) -> bool:
        return bool(self._at_zero_pv.any())

    def _read(self, parts: list[Part], into_rvc: Tensor | None = None) -> None:
        """Read all rows once, a block at a time: check them, tell what is seen, keep them if asked to."""
        rows = int(self._ends[-1])
        self.seen_r, self.partly_r = (torch.empty(rows, dtype=torch.bool) for _ in range(2))
        end = 0
        while parts:  # what a part holds is free again once it is read
            part = parts.pop(0)
            for block in row_blocks(len(part)):
                _check_finite(part, block)
                x_svc, at = part.rows(block), slice(end + block.start, end + block.stop)
                seen_sv = _any_coordinate(x_svc)
                self.seen_r[at] = seen_sv.any(dim=1)
                seen_sv[:, list(part.at_zero)] = True
                self.partly_r[at] = self.seen_r[at] & ~seen_sv.all(dim=1)
                if into_rvc is not None:
                    into_rvc[at] = x_svc
            end += len(part)


class LoadedFrames(Frames):
    """All rows in one tensor `x_rvc` (R, V, C); the `parts` are used up."""

    def __init__(self, parts: list[Part], joints: int) -> None:
        super().__init__(parts, joints)
        if len(parts) == 1 and parts[0].repaired and parts[0].matrix is None:
            self.x_rvc = parts[0].x_rvc  # new already
            self._read(parts)
        else:  # memory is taken only as rows are filled
            shape = (int(self._ends[-1]), joints, parts[0].x_rvc.shape[2])
            try:
                self.x_rvc = torch.from_numpy(np.empty(shape, np.float32))
            except MemoryError:
                raise _no_room("memory", math.prod(shape), "mapped") from None
            self._read(parts, self.x_rvc)

    def lookup(self, row_s: Tensor) -> tuple[Tensor, Tensor]:
        """The rows stand where they are."""
        return self.x_rvc, row_s

    def move(self, device: torch.device) -> None:
        """Take everything to a device."""
        try:
            for name in ("x_rvc", "seen_r", "partly_r", "_ends", "_at_zero_pv"):
                setattr(self, name, getattr(self, name).to(device))
        except torch.OutOfMemoryError:
            raise _no_room(f"the memory of {device}", self.x_rvc.numel(), "host") from None


class MappedFrames(Frames):
    """Rows that stay in the files of their stores, and are read from there whenever they are asked for."""

    def __init__(self, parts: Sequence[Part], joints: int) -> None:
        super().__init__(parts, joints)
        self._parts = parts
        self._read(list(parts))

    def lookup(self, row_s: Tensor) -> tuple[Tensor, Tensor]:
        """The rows where they are, when they need no change, or else in new memory."""
        first = self._parts[0]
        if len(self._parts) == 1 and first.matrix is None:
            return first.x_rvc, row_s
        part_s = torch.bucketize(row_s, self._ends, right=True)
        table_svc = torch.empty(len(row_s), self._at_zero_pv.shape[1], first.x_rvc.shape[2])
        begins = [0, *self._ends[:-1].tolist()]
        for number, (part, begin) in enumerate(zip(self._parts, begins, strict=True)):
            mine_s = (part_s == number).nonzero()[:, 0]
            table_svc[mine_s] = part.rows(row_s[mine_s] - begin)
        return table_svc, torch.arange(len(row_s))


def _no_room(where: str, values: int, instead: str) -> UserError:
    takes = f"frames take {4 * values / 1e9:.3g} GB, more than {where} has"
    return UserError(f"{takes}; leave them elsewhere with data.residence={instead}")


def _any_coordinate(x_svc: Tensor) -> Tensor:
    """Whether any coordinate is not zero, bool (S, V); faster than a reduction over so few."""
    first, *others = x_svc.unbind(dim=2)
    seen_sv = first != 0
    for other_sv in others:
        seen_sv |= other_sv != 0
    return seen_sv


def _check_finite(part: Part, rows: slice) -> None:
    """Raise UserError, naming the row, when one of them is not finite."""
    x_svc = part.x_rvc[rows]
    if not all(bool(bound.isfinite()) for bound in x_svc.aminmax()):
        row = rows.start + int((~x_svc.isfinite()).flatten(1).any(dim=1).to(torch.uint8).argmax())
        path = part.store.path / "frames.npy"
        raise UserError(f"{path}: row {row} is not finite; prepare the store again")


def _as_tensor(x_rvc: NDArray[np.float32]) -> Tensor:
    """A tensor over the memory of an array, which nothing writes to: it may be a read-only file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(x_rvc)
