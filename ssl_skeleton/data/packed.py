"""The frames of a store on one device, and the gather that draws a batch from them."""

import numpy as np
import torch
from torch import Tensor

from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.data.store import Store
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout


class PackedClips:
    """All frames of a store, unpadded, in one tensor; a batch is one gather with interpolation.

    M bodies a clip are drawn (the store's first tracks; a clip with fewer has zeros for the rest).
    """

    def __init__(self, store: Store, bodies: int, device: torch.device | str = "cpu") -> None:
        self.layout: Layout = store.layout
        self.bodies = bodies
        self.coordinates = len(store.meta.coordinates)
        self.frames_rvc = torch.from_numpy(np.array(store.frames_rvc)).to(device)
        wrong_r = ~self.frames_rvc.isfinite().flatten(1).all(dim=1)
        if wrong_r.any():
            row = int(wrong_r.nonzero()[0])
            raise UserError(f"{store.path / 'frames.npy'}: row {row} is not finite; prepare the store again")
        self.seen_r = (self.frames_rvc != 0).flatten(1).any(dim=1)
        self.lengths = torch.from_numpy(np.array(store.lengths)).to(device)
        self.labels = torch.from_numpy(np.array(store.labels)).to(device)
        first_row, first_frame, frames = _track_table(store.tracks, len(store), bodies)
        self._first_row_nm = torch.from_numpy(first_row).to(device)
        self._first_frame_nm = torch.from_numpy(first_frame).to(device)
        self._frames_nm = torch.from_numpy(frames).to(device)

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
        x_ntmvc = self._interpolate(index, position_nt, valid_nt)
        return Clips(x_ntmvc.permute(0, 4, 1, 3, 2).contiguous(), lengths, index, self.labels[index])

    def _interpolate(self, index: Tensor, position_nt: Tensor, valid_nt: Tensor) -> Tensor:
        """Coordinates (N, T, M, V, C) at fractional frames; frames in which a body is unseen weigh nothing.

        A body is absent where the nearer of the two neighbouring frames does not show it.
        """
        local_ntm = position_nt[:, :, None] - self._first_frame_nm[index][:, None]
        last_ntm = (self._frames_nm[index] - 1)[:, None]
        inside_ntm = (local_ntm > -0.5) & (local_ntm < last_ntm + 0.5) & valid_nt[:, :, None]
        local_ntm = torch.minimum(local_ntm.clamp(min=0), last_ntm.clamp(min=0).to(local_ntm.dtype))
        before_ntm = local_ntm.floor()
        share_ntm = local_ntm - before_ntm
        row_ntm = self._first_row_nm[index][:, None] + before_ntm.long()
        next_ntm = row_ntm + (share_ntm > 0)
        seen_before, seen_after = self.seen_r[row_ntm], self.seen_r[next_ntm]
        seen_ntm = inside_ntm & torch.where(share_ntm > 0.5, seen_after, seen_before)
        weight_ntm = torch.where(seen_before & seen_after, share_ntm, seen_after.to(share_ntm.dtype))
        x_ntmvc = torch.lerp(self.frames_rvc[row_ntm], self.frames_rvc[next_ntm], weight_ntm[..., None, None])
        return x_ntmvc * seen_ntm[..., None, None]


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
