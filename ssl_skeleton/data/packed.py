"""The frames of stores on one device, and the gather that draws a batch from them."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.data.store import Store
from ssl_skeleton.data.views.repair import RepairConfig, repair
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout
from ssl_skeleton.skeleton.remap import remap, remap_matrix


class PackedClips:
    """All frames of stores, unpadded, in one tensor; a batch is one gather with interpolation.

    M bodies a clip are drawn (a store's first tracks; a clip with fewer has zeros for the rest). The clips of
    several stores follow one another, all with the joints of `layout` (by default the first store's).
    Recordings are repaired as their store has them, and then mapped onto the layout.

    Raises UserError when a store lacks a joint of the layout, or has other coordinates than the first one.
    """

    def __init__(
        self,
        stores: Store | Sequence[Store],
        bodies: int,
        device: torch.device | str = "cpu",
        layout: Layout | None = None,
        mend: RepairConfig | None = None,
    ) -> None:
        stores = [stores] if isinstance(stores, Store) else list(stores)
        self.layout: Layout = layout or stores[0].layout
        self.bodies = bodies
        self.coordinate_names = stores[0].meta.coordinates
        parts = [_load(store, self.layout, self.coordinate_names, mend or RepairConfig()) for store in stores]
        frames_rvc = parts[0][0] if len(parts) == 1 else np.concatenate([frames for frames, _ in parts])
        self.frames_rvc = torch.from_numpy(frames_rvc).to(device)
        self.seen_rv = _seen(self.frames_rvc)
        self.lengths = torch.from_numpy(np.concatenate([store.lengths for store in stores])).to(device)
        self.labels = torch.from_numpy(np.concatenate([store.labels for store in stores])).to(device)
        tracks = _joined([tracks for _, tracks in parts], stores, [len(frames) for frames, _ in parts])
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
        x_nmtvc, seen_nmtv = (self._by_clip(part, n, m, len(index)) for part in (x_ktvc, seen_ktv))
        return x_nmtvc.permute(0, 4, 2, 3, 1).contiguous(), seen_nmtv.permute(0, 2, 3, 1)[:, None]

    def _rows(self, row_kt: Tensor) -> Tensor:
        """Stored frames (K, T, V, C)."""
        return self.frames_rvc.index_select(0, row_kt.flatten()).view(
            *row_kt.shape, *self.frames_rvc.shape[1:]
        )

    def _by_clip(self, value_k: Tensor, n: Tensor, m: Tensor, clips: int) -> Tensor:
        """What tracks have, (K, ...), as what clips and bodies have, (N, M, ...); zero for no track."""
        if self.bodies == 1 and len(n) == clips:
            return value_k[:, None]
        value_nm = value_k.new_zeros(clips, self.bodies, *value_k.shape[1:])
        value_nm[n, m] = value_k
        return value_nm


def _load(
    store: Store, layout: Layout, coordinates: tuple[str, ...], mend: RepairConfig
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The frames and tracks of a store, checked, repaired, with the joints of `layout`."""
    if store.meta.coordinates != coordinates:
        wanted, found = ", ".join(coordinates), ", ".join(store.meta.coordinates)
        raise UserError(f"{store.path}: has {found}, but the other store {wanted}; use stores of one kind")
    frames_rvc, tracks = np.array(store.frames_rvc), store.tracks
    wrong_r = ~np.isfinite(frames_rvc).all(axis=(1, 2))
    if wrong_r.any():
        row = int(wrong_r.argmax())
        raise UserError(f"{store.path / 'frames.npy'}: row {row} is not finite; prepare the store again")
    if mend != RepairConfig():
        spatial = sum(name in ("x", "y", "z") for name in coordinates)
        frames_rvc, tracks = repair(frames_rvc, tracks, mend, spatial)
    if layout != store.layout:
        frames_rvc = remap(frames_rvc, remap_matrix(store.layout, layout))
    return frames_rvc, tracks


def _seen(frames_rvc: Tensor) -> Tensor:
    """Which joints are seen, bool (R, V); (R, 1) where every body that is seen is seen as a whole."""
    seen_rv = (frames_rvc != 0).any(dim=2)
    body_r1 = seen_rv.any(dim=1, keepdim=True)
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
