"""What is wrong in the frames of a store: missing and frozen joints, jumping bones, impossible bodies.

One pass over the rows, some whole clips at a time, so that memory does not grow with the store.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.store import Store
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout, Spot

JUMP = 0.5  # a bone jumps when its shorter length is below this share of its longer one
_POSTURES = (
    *("spine_frames_k", "below_frames_k", "lying_frames_k"),
    *("girdle_frames_k", "crossed_frames_k", "feet_frames_k", "backward_frames_k"),
)
_ROWS_AT_ONCE = 1 << 12  # what a few such arrays take stays within a processor's cache

Counts = NDArray[np.int64]
Mask = NDArray[np.bool_]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Defects:
    """Counts by joint (V), bone (B: child and parent in `bones_b`), clip (N) and track (K).

    Only frames in which a body is seen count: any coordinate is not zero. A joint is missing there when its
    position is exactly zero or its confidence is 0. A pair is two neighbouring frames of one track, both
    seen. A joint is frozen in a pair when it has the very same position twice while at least half of the
    joints that are there twice move; a pair in which none of them moves is repeated.
    """

    body_frames: int
    pairs: int
    repeated: int
    missing_v: Counts
    joint_pairs_v: Counts  # pairs in which the joint is there twice
    frozen_v: Counts
    bone_pairs_b: Counts  # pairs in which both ends are there twice
    jumps_b: Counts
    jumps_n: Counts  # pairs in which any bone jumps
    seen_frames_n: Counts  # frames of the clip in which anybody is seen
    digest_n: NDArray[np.bytes_]  # equal when the coordinates and times of all tracks are
    spine_frames_k: Counts  # frames with both ends of the spine
    below_frames_k: Counts  # of these, frames with the upper end below the lower one
    lying_frames_k: Counts  # of these, frames with the spine nearer to the level than to the upright
    girdle_frames_k: Counts  # frames with hips and shoulders
    crossed_frames_k: Counts  # of these, frames in which the hips point against the shoulders
    feet_frames_k: Counts  # frames with spine, hips, ankles and feet
    backward_frames_k: Counts  # of these, frames in which the feet point to where the back is
    torso_k: Values  # median distance of the spine's ends; NaN when they are never there


class _Chunk(NamedTuple):
    """Some whole clips: R rows, K tracks one after another, and what tells which joints are there."""

    x_rvc: Values  # positions alone
    there_rv: Mask
    seen_r: Mask
    pair_r: Mask  # (R - 1,): rows r and r + 1 are a pair
    track_r: Counts  # from 0, within the chunk
    tracks: int


def bones(layout: Layout) -> tuple[tuple[int, int], ...]:
    """The (child, parent) joints of every bone, (B, 2)."""
    return tuple((child, parent) for child, parent in enumerate(layout.parents) if child != parent)


def joints_there(x_rvc: NDArray[np.float32], coordinates: Sequence[str]) -> Mask:
    """Which joints are there, (R, V): the position is not exactly zero, nor the confidence 0."""
    places = [axis for axis, name in enumerate(coordinates) if name != "confidence"]
    there_rv = np.asarray(x_rvc[..., places].any(axis=-1))
    if "confidence" in coordinates:
        there_rv &= x_rvc[..., list(coordinates).index("confidence")] > 0
    return there_rv


def find_defects(store: Store) -> Defects:
    """Look through all frames of `store`; UserError when one is not finite."""
    parts = [_look(store, first, last) for first, last in _clip_ranges(store)]
    merged: dict[str, Any] = {}
    for item in fields(Defects):
        values = [part[item.name] for part in parts]
        merged[item.name] = np.concatenate(values) if item.name[-2:] in ("_n", "_k") else sum(values)
    return Defects(**merged)


def _clip_ranges(store: Store) -> Iterator[tuple[int, int]]:
    """Ranges of clips with about `_ROWS_AT_ONCE` rows each."""
    start_n = np.searchsorted(store.tracks[:, 0], np.arange(len(store) + 1))
    rows_n = np.concatenate([[0], np.cumsum(store.tracks[:, 3])])[start_n]
    first = 0
    while first < len(store):
        last = int(np.searchsorted(rows_n, rows_n[first] + _ROWS_AT_ONCE, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def _look(store: Store, first: int, last: int) -> dict[str, Any]:
    """The fields of `Defects` for the clips from `first` up to but not `last`."""
    tracks = store.tracks[slice(*np.searchsorted(store.tracks[:, 0], (first, last)))]
    frames_k = tracks[:, 3]
    track_r = np.repeat(np.arange(len(tracks)), frames_k)
    frame_r = np.arange(len(track_r)) - np.repeat(np.cumsum(frames_k) - frames_k, frames_k)
    x_rvc = store.frames_rvc[tracks[track_r, 1] + frame_r]
    wrong_r = ~np.isfinite(x_rvc).all(axis=(1, 2))
    if wrong_r.any():
        row = int((tracks[track_r, 1] + frame_r)[wrong_r][0])
        raise UserError(f"{store.path / 'frames.npy'}: row {row} is not finite; --check lists all faults")
    chunk = _chunk(store.meta.coordinates, x_rvc, track_r, len(tracks))
    clip_r = tracks[track_r, 0] - first
    return {
        "body_frames": int(chunk.seen_r.sum()),
        "missing_v": (chunk.seen_r[:, None] & ~chunk.there_rv).sum(axis=0),
        **_frozen(chunk),
        **_jumps(chunk, bones(store.layout), clip_r, last - first),
        "seen_frames_n": _seen_frames(clip_r, tracks[track_r, 2] + frame_r, chunk.seen_r, last - first),
        "digest_n": _digests(x_rvc, tracks, first, last),
        **_posture(chunk, store.layout),
    }


def _chunk(coordinates: Sequence[str], x_rvc: NDArray[np.float32], track_r: Counts, tracks: int) -> _Chunk:
    seen_r = np.asarray(x_rvc.any(axis=(1, 2)))
    places = [axis for axis, name in enumerate(coordinates) if name != "confidence"]
    there_rv = joints_there(x_rvc, coordinates)
    pair_r = (track_r[1:] == track_r[:-1]) & seen_r[1:] & seen_r[:-1]
    return _Chunk(x_rvc[:, :, places].astype(np.float64), there_rv, seen_r, pair_r, track_r, tracks)


def _frozen(chunk: _Chunk) -> dict[str, Any]:
    """Joints that stand still while others move, and frames that repeat the one before."""
    twice_pv = chunk.there_rv[1:][chunk.pair_r] & chunk.there_rv[:-1][chunk.pair_r]
    same_pv = (chunk.x_rvc[1:] == chunk.x_rvc[:-1]).all(axis=2)[chunk.pair_r] & twice_pv
    there_p, same_p = twice_pv.sum(axis=1), same_pv.sum(axis=1)
    others_move_p = 2 * same_p <= there_p
    return {
        "pairs": len(twice_pv),
        "repeated": int(((same_p == there_p) & (there_p > 0)).sum()),
        "joint_pairs_v": twice_pv.sum(axis=0),
        "frozen_v": same_pv[others_move_p].sum(axis=0),
    }


def _jumps(chunk: _Chunk, bones_b: Sequence[tuple[int, int]], clip_r: Counts, clips: int) -> dict[str, Any]:
    """Bones whose length leaps between two neighbouring frames."""
    child, parent = np.array(bones_b, dtype=np.int64).reshape(-1, 2).T
    length_rb = _length(chunk.x_rvc[:, child] - chunk.x_rvc[:, parent])
    there_rb = chunk.there_rv[:, child] & chunk.there_rv[:, parent]
    twice_rb = there_rb[1:] & there_rb[:-1] & chunk.pair_r[:, None]
    before_rb, after_rb = length_rb[:-1], length_rb[1:]
    jump_rb = twice_rb & (np.minimum(before_rb, after_rb) < JUMP * np.maximum(before_rb, after_rb))
    return {
        "bone_pairs_b": twice_rb.sum(axis=0),
        "jumps_b": jump_rb.sum(axis=0),
        "jumps_n": np.bincount(clip_r[1:][jump_rb.any(axis=1)], minlength=clips),
    }


def _posture(chunk: _Chunk, layout: Layout) -> dict[str, Any]:
    """Where the upper body is, how long it is, and whether hips and shoulders point the same way."""
    if layout.facing is None:
        none_k = np.zeros(chunk.tracks, dtype=np.int64)
        return {**dict.fromkeys(_POSTURES, none_k), "torso_k": np.full(chunk.tracks, np.nan)}
    spine_rc, spine_r = _across(chunk, layout, layout.facing.lower_spine, layout.facing.upper_spine)
    hips_rc, hips_r = _across(chunk, layout, layout.facing.left_hip, layout.facing.right_hip)
    arms_rc, arms_r = _across(chunk, layout, layout.facing.left_shoulder, layout.facing.right_shoulder)
    feet_rc, feet_r = _feet(chunk, layout)
    girdle_r, feet_r = hips_r & arms_r, feet_r & hips_r & spine_r
    spine_length_r = _length(spine_rc)

    def count(mask_r: Mask) -> Counts:
        return np.bincount(chunk.track_r[mask_r], minlength=chunk.tracks)

    postures = (
        spine_r,
        spine_r & (spine_rc[:, 1] < 0),
        spine_r & (np.abs(spine_rc[:, 1]) < np.sqrt(0.5) * spine_length_r),
        girdle_r,
        girdle_r & ((hips_rc * arms_rc).sum(axis=1) < 0),
        feet_r,
        feet_r & _points_back(feet_rc, hips_rc, spine_rc),
    )
    return {
        **{name: count(mask_r) for name, mask_r in zip(_POSTURES, postures, strict=True)},
        "torso_k": _medians(spine_length_r[spine_r], chunk.track_r[spine_r], chunk.tracks),
    }


def _feet(chunk: _Chunk, layout: Layout) -> tuple[Values, Mask]:
    """The way from the ankles to the feet, (R, C), and where they are there; nowhere in a body without."""
    names = ("left_ankle", "right_ankle", "left_foot", "right_foot")
    if chunk.x_rvc.shape[2] < 3 or not set(names) <= set(layout.joints):
        return np.zeros_like(chunk.x_rvc[:, 0]), np.zeros(len(chunk.x_rvc), np.bool_)
    return _across(chunk, layout, names[:2], names[2:])


def _points_back(feet_rc: Values, hips_rc: Values, spine_rc: Values) -> Mask:
    """Where feet point against the way that a body with these hips (left to right) and spine looks."""
    if feet_rc.shape[1] < 3:
        return np.zeros(len(feet_rc), np.bool_)
    back_rc = np.cross(hips_rc, spine_rc)
    return np.asarray((feet_rc * back_rc).sum(axis=1) > 0)


def _across(chunk: _Chunk, layout: Layout, start: Spot, end: Spot) -> tuple[Values, Mask]:
    """The way from one place of the body to another, (R, C), and where all its joints are there, (R,)."""
    starts, ends = list(layout.indices(start)), list(layout.indices(end))
    way_rc: Values = chunk.x_rvc[:, ends].mean(axis=1) - chunk.x_rvc[:, starts].mean(axis=1)
    return way_rc, np.asarray(chunk.there_rv[:, starts + ends].all(axis=1))


def _seen_frames(clip_r: Counts, frame_r: Counts, seen_r: Mask, clips: int) -> Counts:
    """In how many frames of each clip anybody is seen; two bodies in one frame count once."""
    span = int(frame_r.max(initial=0)) + 1
    return np.bincount(np.unique(clip_r[seen_r] * span + frame_r[seen_r]) // span, minlength=clips)


def _digests(x_rvc: NDArray[np.float32], tracks: Counts, first: int, last: int) -> NDArray[np.bytes_]:
    """A digest of each clip's tracks: first frame, frames, coordinates, (N,)."""
    hashes = [hashlib.sha256() for _ in range(first, last)]
    row = 0
    for clip, _, first_frame, frames in tracks.tolist():
        hashes[clip - first].update(b"%d %d " % (first_frame, frames))
        hashes[clip - first].update(x_rvc[row : row + frames])
        row += frames
    return np.array([one.hexdigest() for one in hashes], dtype=np.bytes_)


def _medians(values_r: Values, track_r: Counts, tracks: int) -> Values:
    """The median of each track's values, (K,); NaN for a track without any."""
    ordered = values_r[np.lexsort((values_r, track_r))]
    counts = np.bincount(track_r, minlength=tracks)
    starts = np.cumsum(counts) - counts
    medians = np.full(tracks, np.nan)
    some = counts > 0
    low, high = (counts - 1) // 2 + starts, counts // 2 + starts
    medians[some] = (ordered[low[some]] + ordered[high[some]]) / 2
    return medians


def _length(x_c: Values) -> Values:
    """The length of vectors along the last axis; three planes are faster than a reduction over them."""
    return np.sqrt(sum(x_c[..., axis] ** 2 for axis in range(x_c.shape[-1])))
