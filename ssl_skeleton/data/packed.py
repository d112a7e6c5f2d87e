"""The frames of stores on one device, and the gather that draws a batch from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_skeleton.data.bodies import by_motion
from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.data.recording import METRES
from ssl_skeleton.data.repair import RepairConfig, repair
from ssl_skeleton.data.store import Store, row_blocks
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout
from ssl_skeleton.skeleton.remap import remap, remap_matrix

Order = Literal["stored", "moving"]


class PackedClips:
    """All frames of stores, unpadded, in one tensor; a batch is one gather.

    M bodies a clip are drawn: its first tracks as they are stored, or with the `order` moving, those that
    move most (`bodies.by_motion`); a clip with fewer has zeros for the rest. The clips of several stores
    follow one another, all with the joints of `layout` (by default the first store's). Recordings are
    repaired as their store has them, and then mapped onto the layout. A joint exactly at zero is missing, but
    for the root of recordings in space that are relative to it: zero in all of its store.

    Raises UserError when a store lacks a joint of the layout, or has other coordinates than the first one.
    """

    def __init__(
        self,
        stores: Store | Sequence[Store],
        bodies: int,
        device: torch.device | str = "cpu",
        layout: Layout | None = None,
        mend: RepairConfig | None = None,
        *,
        order: Order = "stored",
    ) -> None:
        stores = [stores] if isinstance(stores, Store) else list(stores)
        self.layout: Layout = layout or stores[0].layout
        self.bodies = bodies
        self.order: Order = order
        self.coordinate_names = stores[0].meta.coordinates
        parts = [_load(store, self.layout, self.coordinate_names, mend or RepairConfig()) for store in stores]
        tracks = _joined([part.tracks for part in parts], stores, [len(part.frames_rvc) for part in parts])
        at_zero = _at_zero(parts)
        frames_rvc = _together(parts, len(self.layout.joints))
        self.frames_rvc = torch.from_numpy(frames_rvc).to(device)
        self.seen_rv = _seen(self.frames_rvc, at_zero)
        self.lengths = torch.from_numpy(np.concatenate([store.lengths for store in stores])).to(device)
        self.labels = torch.from_numpy(np.concatenate([store.labels for store in stores])).to(device)
        if order == "moving":
            place_rvc = frames_rvc[..., : _spatial(self.coordinate_names)]
            tracks = by_motion(tracks, place_rvc, self.seen_rv.cpu().numpy())
        first_row, first_frame, frames = _track_table(tracks, len(self.lengths), bodies)
        self._first_row_nm = torch.from_numpy(first_row).to(device)
        self._first_frame_nm = torch.from_numpy(first_frame).to(device)
        self._frames_nm = torch.from_numpy(frames).to(device)

    @property
    def coordinates(self) -> int:
        """C, how many coordinates a joint has."""
        return len(self.coordinate_names)

    @property
    def device(self) -> torch.device:
        """Where the frames are, and the batches will be."""
        return self.frames_rvc.device

    def gather(self, index: Tensor, frames: int | None, window: Tensor | None = None) -> Clips:
        """The clips `index` (N,), resampled to T = `frames`, or at their own rate when that is None.

        `window` float (N, 2): start and length of the part to take, as shares of the clip (start 0 is
        its first possible place, 1 its last); None takes whole clips. At their own rate, clips are padded
        with zeros to the longest.
        """
        index = index.to(self.device)
        start, span = _window_in_frames(self.lengths[index], window, whole=frames is None)
        if frames is None:
            lengths = span.long() + 1
            steps = torch.arange(int(lengths.max()), device=self.device)
            position_nt = start.round()[:, None] + steps
        else:
            lengths = torch.full_like(index, frames)
            share = (
                torch.linspace(0, 1, frames, device=self.device) if frames > 1 else start.new_full((1,), 0.5)
            )
            position_nt = start[:, None] + span[:, None] * share
        valid_nt = frame_mask(lengths, position_nt.shape[1])
        x_nctvm, seen = self._interpolate(index, position_nt, valid_nt)
        return Clips(x_nctvm, lengths, index, self.labels[index], seen)

    def loop(self, index: Tensor, frames: int, window: Tensor | None = None) -> Clips:
        """The clips `index` (N,), each body's own frames over and over until T = `frames`, the rest cut off.

        The own frames of a body that is seen in the first frame of its clip, or of the `window` (as in
        `gather`), reach from there to the last one in which it is seen. Those of another one are the frames
        alone in which it is seen, so that it begins at once. All T frames are valid.
        """
        index = index.to(self.device)
        start, span = _window_in_frames(self.lengths[index], window, whole=True)
        begin_nm = start.round().long()[:, None] - self._first_frame_nm[index]  # of the window, in the track
        end_nm = (begin_nm + 1 + span.long()[:, None]).clamp(min=0).minimum(self._frames_nm[index])
        end_row_nm = self._first_row_nm[index] + end_nm
        row_nm = self._first_row_nm[index] + begin_nm.clamp(min=0).minimum(end_nm)
        seen_row_s, seen_before_r = self._seen_rows
        n, m = (seen_before_r[end_row_nm] > seen_before_r[row_nm]).nonzero(as_tuple=True)
        row_k, begin_k = row_nm[n, m], begin_nm[n, m]
        before_k, until_k = seen_before_r[row_k], seen_before_r[end_row_nm[n, m]]
        at_once_k = (begin_k >= 0) & (seen_row_s[before_k] == row_k)
        own_k = torch.where(at_once_k, seen_row_s[until_k - 1] + 1 - row_k, until_k - before_k)
        step_kt = torch.arange(frames, device=self.device) % own_k[:, None]
        nth_kt = (before_k[:, None] + step_kt).clamp(max=len(seen_row_s) - 1)
        row_kt = torch.where(at_once_k[:, None], row_k[:, None] + step_kt, seen_row_s[nth_kt])
        x_nctvm, seen = self._batch(self._rows(row_kt), self.seen_rv[row_kt], n, m, len(index))
        return Clips(x_nctvm, torch.full_like(index, frames), index, self.labels[index], seen)

    @cached_property
    def _seen_rows(self) -> tuple[Tensor, Tensor]:
        """The S rows in which a body is seen, int64 (S,), and how many lie before each row, (R + 1,)."""
        seen_r = self.seen_rv.any(dim=1)
        before_r = torch.cat([torch.zeros_like(self._first_row_nm[0, :1]), seen_r.cumsum(0)])
        return seen_r.nonzero()[:, 0], before_r

    def _interpolate(self, index: Tensor, position_nt: Tensor, valid_nt: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (N, C, T, V, M) at fractional frames, and which joints are seen (N, 1, T, V or 1, M).

        Frames in which a joint is unseen weigh nothing. A joint is absent where the nearer of the two
        neighbouring frames does not show it. Only the K tracks that there are take time.
        """
        n, m = (self._frames_nm[index] > 0).nonzero(as_tuple=True)
        clip = index[n]
        local_kt = position_nt[n] - self._first_frame_nm[clip, m][:, None]
        last_k1 = (self._frames_nm[clip, m] - 1)[:, None]
        inside_kt = (local_kt > -0.5) & (local_kt < last_k1 + 0.5) & valid_nt[n]
        local_kt = torch.minimum(local_kt.clamp(min=0), last_k1.to(local_kt.dtype))
        before_kt = local_kt.floor()
        share_kt1 = (local_kt - before_kt)[..., None]
        row_kt = self._first_row_nm[clip, m][:, None] + before_kt.long()
        next_kt = row_kt + (share_kt1[..., 0] > 0)
        before_ktv, after_ktv = self.seen_rv[row_kt], self.seen_rv[next_kt]
        seen_ktv = inside_kt[..., None] & torch.where(share_kt1 > 0.5, after_ktv, before_ktv)
        weight_ktv = torch.where(before_ktv & after_ktv, share_kt1, after_ktv.to(share_kt1.dtype))
        x_ktvc = self._rows(row_kt).lerp_(self._rows(next_kt), weight_ktv[..., None])
        x_ktvc *= seen_ktv[..., None]
        return self._batch(x_ktvc, seen_ktv, n, m, len(index))

    def _rows(self, row_kt: Tensor) -> Tensor:
        """Stored frames (K, T, V, C)."""
        return self.frames_rvc.index_select(0, row_kt.flatten()).view(
            *row_kt.shape, *self.frames_rvc.shape[1:]
        )

    def _batch(
        self, x_ktvc: Tensor, seen_ktv: Tensor, n: Tensor, m: Tensor, clips: int
    ) -> tuple[Tensor, Tensor]:
        """What K tracks show as what clips do: (N, C, T, V, M), and what is seen, (N, 1, T, V or 1, M)."""
        x_nmtvc, seen_nmtv = (self._by_clip(part, n, m, clips) for part in (x_ktvc, seen_ktv))
        return x_nmtvc.permute(0, 4, 2, 3, 1).contiguous(), seen_nmtv.permute(0, 2, 3, 1)[:, None]

    def _by_clip(self, value_k: Tensor, n: Tensor, m: Tensor, clips: int) -> Tensor:
        """What tracks have, (K, ...), as what clips and bodies have, (N, M, ...); zero for no track."""
        if self.bodies == 1 and len(n) == clips:
            return value_k[:, None]
        value_nm = value_k.new_zeros(clips, self.bodies, *value_k.shape[1:])
        value_nm[n, m] = value_k
        return value_nm


@dataclass(frozen=True)
class _Part:
    """What one store gives: its frames, still on disk unless `repaired`, and how its joints are mapped.

    `matrix` (V of the layout, V of the store) is None where they are the same. `at_zero` are the joints of
    the layout that are present though they are zero.
    """

    frames_rvc: NDArray[np.float32]
    tracks: NDArray[np.int64]
    repaired: bool
    matrix: NDArray[np.float32] | None
    at_zero: list[int]


def _load(store: Store, layout: Layout, coordinates: tuple[str, ...], mend: RepairConfig) -> _Part:
    """The frames and tracks of a store, checked and repaired."""
    if store.meta.coordinates != coordinates:
        wanted, found = ", ".join(coordinates), ", ".join(store.meta.coordinates)
        raise UserError(f"{store.path}: has {found}, but the other store {wanted}; use stores of one kind")
    matrix = remap_matrix(store.layout, layout) if layout != store.layout else None
    frames_rvc, tracks = store.frames_rvc, store.tracks
    for rows in row_blocks(len(frames_rvc)):
        wrong_r = ~np.isfinite(frames_rvc[rows]).all(axis=(1, 2))
        if wrong_r.any():
            row = rows.start + int(wrong_r.argmax())
            raise UserError(f"{store.path / 'frames.npy'}: row {row} is not finite; prepare the store again")
    spatial = _spatial(coordinates)
    root = store.layout.index(store.layout.root)
    at_zero: list[int] = []
    if spatial == 3 and not frames_rvc[:, root].any():
        at_zero = [root] if matrix is None else np.flatnonzero(matrix[:, root]).tolist()
    if repaired := mend != RepairConfig():
        frames_rvc, tracks = repair(frames_rvc, tracks, mend, spatial)
    return _Part(frames_rvc, tracks, repaired, matrix, at_zero)


def _spatial(coordinates: Sequence[str]) -> int:
    """How many of the coordinates are a place in space."""
    return sum(name in METRES for name in coordinates)


def _together(parts: list[_Part], joints: int) -> NDArray[np.float32]:
    """The frames of all parts, which are used up, in one new array (R, V = `joints`, C)."""
    if len(parts) == 1 and parts[0].repaired and parts[0].matrix is None:
        return parts[0].frames_rvc  # new already
    rows = sum(len(part.frames_rvc) for part in parts)
    together_rvc = np.empty((rows, joints, parts[0].frames_rvc.shape[2]), np.float32)
    end = 0
    while parts:  # memory is taken only as rows are filled, and what a part held is free again then
        part = parts.pop(0)
        for block in row_blocks(len(part.frames_rvc)):
            x_rvc = part.frames_rvc[block]
            into_rvc = together_rvc[end + block.start : end + block.stop]
            into_rvc[:] = x_rvc if part.matrix is None else remap(x_rvc, part.matrix)
        end += len(part.frames_rvc)
    return together_rvc


def _at_zero(parts: Sequence[_Part]) -> list[tuple[slice, list[int]]]:
    """The rows of each part, all parts together, and its joints that are present though they are zero."""
    ends = np.cumsum([0, *(len(part.frames_rvc) for part in parts)]).tolist()
    rows = map(slice, ends[:-1], ends[1:])
    return [(row, part.at_zero) for row, part in zip(rows, parts, strict=True) if part.at_zero]


def _seen(frames_rvc: Tensor, at_zero: Sequence[tuple[slice, list[int]]]) -> Tensor:
    """Which joints are seen, bool (R, V); (R, 1) where every body that is seen is seen as a whole."""
    seen_rv = (frames_rvc != 0).any(dim=2)
    body_r1 = seen_rv.any(dim=1, keepdim=True)
    for rows, joints in at_zero:
        seen_rv[rows, joints] = body_r1[rows]
    return body_r1 if bool((seen_rv == body_r1).all()) else seen_rv


def _joined(
    tracks: Sequence[NDArray[np.int64]], stores: Sequence[Store], rows: Sequence[int]
) -> NDArray[np.int64]:
    """The tracks of all stores, their clips and rows counted on."""
    clips = np.cumsum([0, *map(len, stores)])
    first_rows = np.cumsum([0, *rows])
    shifts = [(clip, row, 0, 0) for clip, row in zip(clips[:-1], first_rows[:-1], strict=True)]
    return np.concatenate([part + np.array(shift) for part, shift in zip(tracks, shifts, strict=True)])


def _window_in_frames(lengths: Tensor, window: Tensor | None, *, whole: bool) -> tuple[Tensor, Tensor]:
    """First frame and last-minus-first frame of each window, float (N,); `whole` rounds the latter."""
    longest = (lengths - 1).to(torch.float32)
    if window is None:
        return torch.zeros_like(longest), longest
    start, share = window.to(longest.device).unbind(dim=1)
    span = (share * lengths - 1).clamp(min=0).minimum(longest)
    if whole:
        span = span.round()
    return start * (longest - span), span


def _track_table(tracks: np.ndarray, clips: int, bodies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First row, first frame and frames of each clip's first M tracks, int64 (N, M); 0 frames: none."""
    table = np.zeros((3, clips, bodies), dtype=np.int64)
    clip = tracks[:, 0]
    slot = np.arange(len(tracks)) - np.searchsorted(clip, clip)  # tracks are sorted by clip
    kept = slot < bodies
    table[:, clip[kept], slot[kept]] = tracks[kept, 1:].T
    return table[0], table[1], table[2]
