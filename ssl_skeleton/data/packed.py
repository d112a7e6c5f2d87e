"""The clips of stores, unpadded, and the gather that draws a batch from them."""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ssl_skeleton.data.bodies import by_motion
from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.data.frames import (
    Frames,
    LoadedFrames,
    MappedFrames,
    Part,
    Residence,
    read_part,
    spatial_of,
)
from ssl_skeleton.data.repair import RepairConfig
from ssl_skeleton.data.store import Store
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout

Order = Literal["stored", "moving"]
_GATHERS = ("cpu", "cuda")  # where torch has the sum of an embedding bag; others share the host's memory


class PackedClips:
    """All clips of stores; a batch is one gather of their frames.

    M bodies a clip are drawn: its first tracks as they are stored, or with the `order` moving, those that
    move most (`bodies.by_motion`); a clip with fewer has zeros for the rest. The clips of several stores
    follow one another, all with the joints of `layout` (by default the first store's). Recordings are
    repaired as their store has them, and then mapped onto the layout. A joint exactly at zero is missing, but
    for the root of recordings in space that are relative to it: zero in all of its store.

    Batches come on `device`. The `residence` of frames is that device, or the host's memory, where batches
    are then gathered and sent from; or they stay `mapped` in the stores' files, however large these are, and
    only what a batch shows is read. Batches are the same, to the bit where the device is the CPU.

    Raises UserError when a store lacks a joint of the layout, has other coordinates than the first one, or
    shall be repaired though it stays in its file.
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
        residence: Residence = "device",
    ) -> None:
        stores = [stores] if isinstance(stores, Store) else list(stores)
        self.layout: Layout = layout or stores[0].layout
        self.bodies = bodies
        self.order: Order = order
        self.device = torch.device(device)
        self.coordinate_names = stores[0].meta.coordinates
        mend = mend or RepairConfig()
        _check(stores, mend, residence)
        parts = [read_part(store, self.layout, mend) for store in stores]
        tracks = _joined(parts)
        joints = len(self.layout.joints)
        self.frames: Frames
        self.frames = MappedFrames(parts, joints) if residence == "mapped" else LoadedFrames(parts, joints)
        if order == "moving":
            spatial = spatial_of(self.coordinate_names)
            tracks = by_motion(tracks, lambda rows: self.frames.numpy(rows, spatial))
        if isinstance(self.frames, LoadedFrames) and residence == "device" and self.device.type in _GATHERS:
            self.frames.move(self.device)
        home = self.frames.device
        self.lengths = torch.from_numpy(np.concatenate([store.lengths for store in stores])).to(home)
        self.labels = torch.from_numpy(np.concatenate([store.labels for store in stores])).to(home)
        self._track_nm3 = torch.from_numpy(_track_table(tracks, len(self.lengths), bodies)).to(home)

    @property
    def coordinates(self) -> int:
        """C, how many coordinates a joint has."""
        return len(self.coordinate_names)

    def gather(
        self,
        index: Tensor,
        frames: int | None,
        window: Tensor | None = None,
        mine: slice | Tensor = slice(None),
    ) -> Clips:
        """The clips `index` (N,), resampled to T = `frames`, or at their own rate when that is None.

        `window` float (N, 2): start and length of the part to take, as shares of the clip (start 0 is
        its first possible place, 1 its last); None takes whole clips. At their own rate, clips are padded
        with zeros to the longest. Of all of these, the clips `mine` are given.
        """
        index = index.to(self.lengths.device)
        start, span = _window_in_frames(self.lengths[index], window, whole=frames is None)
        longest = int(span.max()) + 1 if frames is None else frames
        index, start, span = index[mine], start[mine], span[mine]
        if frames is None:
            lengths = span.long() + 1
            position_nt = start.round()[:, None] + torch.arange(longest, device=start.device)
            return self._interpolate(index, position_nt, lengths, frame_mask(lengths, longest))
        share_t = torch.linspace(0, 1, frames, device=start.device) if frames > 1 else start.new_tensor([0.5])
        return self._interpolate(
            index, start[:, None] + span[:, None] * share_t, torch.full_like(index, frames)
        )

    def loop(
        self, index: Tensor, frames: int, window: Tensor | None = None, mine: slice | Tensor = slice(None)
    ) -> Clips:
        """The clips `index` (N,), each body's own frames over and over until T = `frames`, the rest cut off.

        The own frames of a body that is seen in the first frame of its clip, or of the `window` (as in
        `gather`), reach from there to the last one in which it is seen. Those of another one are the frames
        alone in which it is seen, so that it begins at once. All T frames are valid. Of all of these, the
        clips `mine` are given.
        """
        index, window = index[mine].to(self.lengths.device), window if window is None else window[mine]
        start, span = _window_in_frames(self.lengths[index], window, whole=True)
        first_row_nm, first_frame_nm, frames_nm = self._track_nm3[index].unbind(dim=2)
        begin_nm = start.round().long()[:, None] - first_frame_nm  # of the window, in the track
        end_nm = (begin_nm + 1 + span.long()[:, None]).clamp(min=0).minimum(frames_nm)
        end_row_nm = first_row_nm + end_nm
        row_nm = first_row_nm + begin_nm.clamp(min=0).minimum(end_nm)
        seen_row_s, seen_before_r = self._seen_rows
        n, m = (seen_before_r[end_row_nm] > seen_before_r[row_nm]).nonzero(as_tuple=True)
        row_k, begin_k = row_nm[n, m], begin_nm[n, m]
        before_k, until_k = seen_before_r[row_k], seen_before_r[end_row_nm[n, m]]
        at_once_k = (begin_k >= 0) & (seen_row_s[before_k] == row_k)
        own_k = torch.where(at_once_k, seen_row_s[until_k - 1] + 1 - row_k, until_k - before_k)
        step_kt = torch.arange(frames, device=row_k.device) % own_k[:, None]
        nth_kt = (before_k[:, None] + step_kt).clamp(max=len(seen_row_s) - 1)
        row_kt = torch.where(at_once_k[:, None], row_k[:, None] + step_kt, seen_row_s[nth_kt])
        x_svc, seen_sv = self.frames.joints(row_kt.flatten())
        x_ktvc, seen_ktv = (part.view(*row_kt.shape, *part.shape[1:]) for part in (x_svc, seen_sv))
        if not self.frames.any_partly(row_kt):
            seen_ktv = seen_ktv[..., :1]
        return self._clips(x_ktvc, seen_ktv, (n, m), index, torch.full_like(index, frames))

    @cached_property
    def _seen_rows(self) -> tuple[Tensor, Tensor]:
        """The S rows in which a body is seen, int64 (S,), and how many lie before each row, (R + 1,)."""
        seen_r = self.frames.seen_r
        before_r = torch.cat([seen_r.new_zeros(1, dtype=torch.int64), seen_r.cumsum(0)])
        return seen_r.nonzero()[:, 0], before_r

    def _interpolate(
        self, index: Tensor, position_nt: Tensor, lengths: Tensor, valid_nt: Tensor | None = None
    ) -> Clips:
        """The clips `index` (N,) at fractional frames, of which those that are not valid are left out.

        Frames in which a joint is unseen weigh nothing. A joint is absent where the nearer of the two
        neighbouring frames does not show it. Only the K tracks that there are take time.
        """
        n, m = (self._track_nm3[index, :, 2] > 0).nonzero(as_tuple=True)
        first_row_k1, first_frame_k1, frames_k1 = self._track_nm3[index[n], m, :, None].unbind(dim=1)
        local_kt = position_nt[n] - first_frame_k1
        inside_kt = (local_kt > -0.5) & (local_kt < frames_k1 - 0.5)
        if valid_nt is not None:
            inside_kt &= valid_nt[n]
        local_kt = local_kt.clamp(min=0).minimum(frames_k1 - 1)
        before_kt = local_kt.floor()
        share_kt = local_kt - before_kt
        row_kt = first_row_k1 + before_kt.long()
        row_kt2 = torch.stack([row_kt, row_kt + (share_kt > 0)], dim=2)
        near_kt, weight_kt = _weigh(share_kt, *self.frames.seen_r[row_kt2].unbind(dim=2))
        near_kt &= inside_kt
        weight_kt2 = torch.stack([1 - weight_kt, weight_kt], dim=2) * near_kt[..., None]
        table_lvc, place_s = self.frames.lookup(row_kt2.flatten())
        x_sd = functional.embedding_bag(
            place_s.view(-1, 2),
            table_lvc.flatten(1),
            mode="sum",
            per_sample_weights=weight_kt2.view(-1, 2),
        )
        x_ktvc, seen_ktv = x_sd.view(*row_kt.shape, *table_lvc.shape[1:]), near_kt[..., None]
        if self.frames.any_partly(row_kt2):
            seen_ktv = seen_ktv.expand(x_ktvc.shape[:3]).contiguous()
            self._joint_by_joint(x_ktvc, seen_ktv, row_kt2, share_kt, inside_kt)
        return self._clips(x_ktvc, seen_ktv, (n, m), index, lengths)

    def _joint_by_joint(
        self, x_ktvc: Tensor, seen_ktv: Tensor, row_kt2: Tensor, share_kt: Tensor, inside_kt: Tensor
    ) -> None:
        """Write anew what comes from rows in which joints are missing: each joint has weights of its own."""
        mixed = (self.frames.partly_r[row_kt2].any(dim=2) & inside_kt).nonzero(as_tuple=True)
        row_s2, share_s1 = row_kt2[mixed], share_kt[mixed][:, None]
        (one_svc, one_sv), (two_svc, two_sv) = map(self.frames.joints, row_s2.T.contiguous())
        near_sv, weight_sv = _weigh(share_s1, one_sv, two_sv)
        x_ktvc[mixed] = one_svc.lerp(two_svc, weight_sv[..., None]) * near_sv[..., None]
        seen_ktv[mixed] = near_sv

    def _clips(
        self, x_ktvc: Tensor, seen_ktv: Tensor, place: tuple[Tensor, Tensor], index: Tensor, lengths: Tensor
    ) -> Clips:
        """What K tracks show, each a clip and a body of it, as clips (N, C, T, V, M) on the device.

        In memory, C comes last, and T and V before it, where it is wanted most.
        """
        sent = partial(_sent, device=self.device)
        n, m = map(sent, place)
        x_nmtvc, seen_nmtv = (
            _by_clip(sent(part), n, m, (len(index), self.bodies)) for part in (x_ktvc, seen_ktv)
        )
        x_nctvm, seen = x_nmtvc.permute(0, 4, 2, 3, 1), seen_nmtv.permute(0, 2, 3, 1)[:, None]
        return Clips(x_nctvm, sent(lengths), sent(index), sent(self.labels[index]), seen)


def _weigh(share: Tensor, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the nearer of two frames shows something, and the weight of the second one.

    `share` from 0 to 1 is how far behind the first one the place is; `one` and `two` say which shows it.
    """
    return torch.where(share > 0.5, two, one), torch.where(one & two, share, two.to(share.dtype))


def _by_clip(value_k: Tensor, n: Tensor, m: Tensor, shape: tuple[int, int]) -> Tensor:
    """What tracks have, (K, ...), as what clips and bodies have, (N, M, ...); zero for no track."""
    if len(n) == shape[0] * shape[1]:
        return value_k.view(*shape, *value_k.shape[1:])
    value_nm = value_k.new_zeros(*shape, *value_k.shape[1:])
    value_nm[n, m] = value_k
    return value_nm


def _sent(x: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device; a copy to a GPU goes on while more is prepared."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


def _check(stores: Sequence[Store], mend: RepairConfig, residence: Residence) -> None:
    """Raise UserError when stores do not go together, or their residence does not go with their repair."""
    wanted = stores[0].meta.coordinates
    for store in stores:
        if store.meta.coordinates != wanted:
            lists = f"has {', '.join(store.meta.coordinates)}, but the other store {', '.join(wanted)}"
            raise UserError(f"{store.path}: {lists}; use stores of one kind")
    if residence == "mapped" and mend != RepairConfig():
        raise UserError(
            "data.residence: mapped reads frames as they are stored, but data.repair needs whole recordings; "
            "choose device or host, or repair nothing"
        )


def _joined(parts: Sequence[Part]) -> NDArray[np.int64]:
    """The tracks of all parts, their clips and rows counted on."""
    clips = np.cumsum([0, *(len(part.store) for part in parts)])
    rows = np.cumsum([0, *map(len, parts)])
    shifts = [np.array((clip, row, 0, 0)) for clip, row in zip(clips[:-1], rows[:-1], strict=True)]
    return np.concatenate([part.tracks + shift for part, shift in zip(parts, shifts, strict=True)])


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


def _track_table(tracks: NDArray[np.int64], clips: int, bodies: int) -> NDArray[np.int64]:
    """First row, first frame and frames of each clip's first M tracks, (N, M, 3); 0 frames: none."""
    table_nm3 = np.zeros((clips, bodies, 3), dtype=np.int64)
    clip = tracks[:, 0]
    slot = np.arange(len(tracks)) - np.searchsorted(clip, clip)  # tracks are sorted by clip
    kept = slot < bodies
    table_nm3[clip[kept], slot[kept]] = tracks[kept, 1:]
    return table_nm3
