"""Repair of recordings before any view is drawn: phantoms, exchanged bodies, gaps, noise."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.signal import savgol_filter

from ssl_skeleton.config import Config
from ssl_skeleton.data.bodies import motion, persons
from ssl_skeleton.data.swaps import follow

Frames = NDArray[np.float32]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

_BLOCK = 1 << 16  # rows worked on at once: bounds the memory that repair takes beside its result
_ORDER = 2  # of the Savitzky-Golay polynomials


class RepairConfig(Config):
    """What is repaired, in this order, once, when the frames of a store are loaded.

    drop_phantoms  leaves out bodies that are no persons (see `ssl_skeleton.data.bodies.persons`) and puts
                   the one that moves most first.
    fix_swaps      gives each person its own track again where a tracker exchanged or renewed its ids (see
                   `ssl_skeleton.data.swaps.follow` for the rule).
    fill_gaps      fills gaps of up to so many frames by straight lines: a body not seen, or a joint missing
                   while its body is seen. What is missing before the first or after the last sight stays so.
    smooth         frames of the Savitzky-Golay window (odd, at least 5; polynomials of order 2; Savitzky and
                   Golay, Analytical Chemistry 1964); 0: none. Each unbroken run of a joint is smoothed by
                   itself, to its very ends; runs shorter than the window stay as they are.
    """

    drop_phantoms: bool = False
    fix_swaps: bool = False
    fill_gaps: int = Field(default=0, ge=0)
    smooth: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_window(self) -> Self:
        if self.smooth and (self.smooth < _ORDER + 3 or self.smooth % 2 == 0):
            raise ValueError(f"smooth is 0 or an odd number from {_ORDER + 3} on, not {self.smooth}")
        return self


@dataclass(frozen=True)
class _Track:
    """One body: its clip, its first frame there, and the row of each of its frames; -1: not seen."""

    clip: int
    first: int
    rows_t: Indices


def repair(
    frames_rvc: Frames, tracks: Indices, config: RepairConfig, spatial: int = 3
) -> tuple[Frames, Indices]:
    """The frames and tracks of a store with the repairs that `config` names, always as new arrays.

    A joint is missing where its coordinates are all zero, or where the confidence that stands behind them
    is zero. Confidences are never changed, so a filled joint keeps the confidence zero.

    Args:
        frames_rvc: finite float32 (R, V, C), may be a read-only memory map.
        tracks: int64 (tracks, 4): clip, first row, first frame in the clip, frames; sorted by clip.
        config: what to do.
        spatial: how many of the C coordinates are space, 2 or 3; one behind them is the confidence.

    Returns:
        New frames and tracks in the same form; every clip keeps at least one track, inside the frames that
        its tracks had. A clip whose bodies were exchanged has its bodies sorted anew, by how much they move.
    """
    if config == RepairConfig():
        return np.array(frames_rvc), np.array(tracks)
    bodies = [_Track(clip, first, np.arange(row, row + count)) for clip, row, first, count in tracks.tolist()]
    if config.drop_phantoms or config.fix_swaps:
        bodies = [
            body
            for _, clip in groupby(bodies, key=lambda body: body.clip)
            for body in _repair_clip(list(clip), frames_rvc, config, spatial)
        ]
    x_rvc, tracks = _pack(bodies, frames_rvc)
    for rows in _blocks(tracks):
        begins_r = np.zeros(rows.stop - rows.start, dtype=bool)
        begins_r[tracks[(tracks[:, 1] >= rows.start) & (tracks[:, 1] < rows.stop), 1] - rows.start] = True
        present_rv = _present(x_rvc[rows], spatial)
        if config.fill_gaps:
            _fill_gaps(x_rvc[rows], present_rv, begins_r, config.fill_gaps, spatial)
        if config.smooth:
            _smooth(x_rvc[rows], present_rv, begins_r, config.smooth, spatial)
    return x_rvc, tracks


def _repair_clip(clip: list[_Track], frames_rvc: Frames, config: RepairConfig, spatial: int) -> list[_Track]:
    """The bodies of one clip without phantoms and exchanges."""
    if config.drop_phantoms and len(clip) > 1:
        clip = _without_phantoms(clip, frames_rvc, spatial)
    if config.fix_swaps and len(clip) > 1:
        clip = _without_swaps(clip, frames_rvc, spatial)
    return clip


def _pack(bodies: list[_Track], frames_rvc: Frames) -> tuple[Frames, Indices]:
    """Frames and tracks in which the rows of each body follow those of the one before."""
    counts = np.array([len(body.rows_t) for body in bodies])
    places = [(body.clip, body.first) for body in bodies]
    rows = np.concatenate([body.rows_t for body in bodies])
    x_rvc = np.asarray(frames_rvc[rows])
    x_rvc[rows < 0] = 0
    clip, first = np.array(places, dtype=np.int64).T
    return x_rvc, np.stack([clip, np.cumsum(counts) - counts, first, counts], axis=1)


def _blocks(tracks: Indices) -> Iterator[slice]:
    """Slices of rows that hold whole tracks each, which must follow each other as `_pack` has them."""
    _, firsts = np.unique(tracks[:, 1] // _BLOCK, return_index=True)
    starts = tracks[firsts, 1].tolist()
    ends = [*starts[1:], int(tracks[-1, 1] + tracks[-1, 3])]
    yield from map(slice, starts, ends)


def _present(x_rvc: Frames, spatial: int) -> Mask:
    """Which joints are there, bool (R, V)."""
    present_rv = np.asarray((x_rvc[..., :spatial] != 0).any(axis=-1))
    if x_rvc.shape[-1] > spatial:
        present_rv &= x_rvc[..., spatial] != 0
    return present_rv


def _seen_poses(track: _Track, frames_rvc: Frames, spatial: int) -> Frames:
    """The T poses (T, V, `spatial`) in which a body is seen, missing joints amid the others of a frame."""
    rows = track.rows_t[track.rows_t >= 0]
    x_tvc = frames_rvc[rows]
    present_tv = _present(x_tvc, spatial)
    seen_t = present_tv.any(axis=1)
    x_tvc, there_tv1 = x_tvc[seen_t, :, :spatial], present_tv[seen_t, :, None]
    if there_tv1.all():
        return x_tvc
    middle_t1c = np.where(there_tv1, x_tvc, 0).sum(axis=1, keepdims=True) / there_tv1.sum(
        axis=1, keepdims=True
    )
    return np.where(there_tv1, x_tvc, middle_t1c)


def _without_phantoms(clip: list[_Track], frames_rvc: Frames, spatial: int) -> list[_Track]:
    poses = [_seen_poses(track, frames_rvc, spatial) for track in clip]
    seen = [number for number, x_tvc in enumerate(poses) if len(x_tvc)]
    kept = persons([poses[number] for number in seen])
    return [clip[seen[number]] for number in kept] or clip


def _without_swaps(clip: list[_Track], frames_rvc: Frames, spatial: int) -> list[_Track]:
    """One track a person, the one that moves most first; the very same tracks where nothing is exchanged."""
    start = min(track.first for track in clip)
    end = max(track.first + len(track.rows_t) for track in clip)
    row_mt = np.full((len(clip), end - start), -1)
    for row_t, track in zip(row_mt, clip, strict=True):
        row_t[track.first - start : track.first - start + len(track.rows_t)] = track.rows_t
    x_mtvc = frames_rvc[row_mt]
    present_mtv = _present(x_mtvc, spatial) & (row_mt >= 0)[..., None]
    person_mt = follow(x_mtvc[..., :spatial], present_mtv)
    if (person_mt == np.arange(len(clip))[:, None]).all():
        return clip
    found = []
    for person in range(len(clip)):
        frame, body = np.nonzero(((person_mt == person) & present_mtv.any(axis=2)).T)
        if len(frame):
            rows_t = np.full(frame[-1] - frame[0] + 1, -1)
            rows_t[frame - frame[0]] = row_mt[body, frame]
            found.append(_Track(clip[0].clip, start + int(frame[0]), rows_t))
    return sorted(found, key=lambda track: motion(_seen_poses(track, frames_rvc, spatial)), reverse=True)


def _runs(mask_rv: Mask, begins_r: Mask) -> tuple[Indices, Indices, Indices]:
    """Joint, first row and end of every run of true values; none goes on where a track begins."""
    mask_vr = np.ascontiguousarray(mask_rv.T)
    goes_on_vr = mask_vr[:, 1:] & mask_vr[:, :-1] & ~begins_r[1:]
    first_vr, last_vr = mask_vr.copy(), mask_vr
    first_vr[:, 1:] &= ~goes_on_vr
    last_vr[:, :-1] &= ~goes_on_vr
    joint, first = np.nonzero(first_vr)
    return joint, first, np.nonzero(last_vr)[1] + 1


def _fill_gaps(x_rvc: Frames, present_rv: Mask, begins_r: Mask, longest: int, spatial: int) -> None:
    """Draw straight lines over the gaps of at most `longest` frames; what is filled is then present."""
    joint, first, end = _runs(~present_rv, begins_r)
    begins_r = np.append(begins_r, True)
    fills = ~begins_r[first] & ~begins_r[end] & (end - first <= longest)
    joint, first, count = joint[fills], first[fills], (end - first)[fills]
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + 1
    joint, before, count = (np.repeat(values, count) for values in (joint, first - 1, count))
    share = (step / (count + 1))[:, None]
    one, two = x_rvc[before, joint, :spatial], x_rvc[before + count + 1, joint, :spatial]
    x_rvc[before + step, joint, :spatial] = (1 - share) * one + share * two
    present_rv[before + step, joint] = True


def _smooth(x_rvc: Frames, present_rv: Mask, begins_r: Mask, window: int, spatial: int) -> None:
    """Smooth every run of at least `window` frames; its first and last half window by one polynomial each."""
    joint, first, end = _runs(present_rv, begins_r)
    long = end - first >= window
    joint, first, end = joint[long, None], first[long, None], end[long, None]
    if not len(joint):
        return
    half = window // 2
    inner_vr = np.zeros((present_rv.shape[1], len(x_rvc) + 1), dtype=np.int8)
    inner_vr[joint, first + half] = 1
    inner_vr[joint, end - half] = -1
    inner_rv = np.cumsum(inner_vr, axis=1, dtype=np.int8)[:, :-1].T > 0
    smooth_rvc = savgol_filter(x_rvc[..., :spatial], window, _ORDER, axis=0, mode="constant")
    for rows, kept in (
        (first + np.arange(window), slice(half)),
        (end + np.arange(-window, 0), slice(-half, None)),
    ):
        # All runs are fitted at once, and in float32 the rounding of one would reach the others.
        x_nwc = x_rvc[rows, joint, :spatial].astype(np.float64)
        edge = savgol_filter(x_nwc, window, _ORDER, axis=1, mode="interp")
        smooth_rvc[rows[:, kept], joint] = edge[:, kept]
        inner_rv[rows[:, kept], joint] = True
    x_rvc[..., :spatial][inner_rv] = smooth_rvc[inner_rv]
