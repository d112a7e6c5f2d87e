"""Stores in memory whose clips are shown otherwise than they were recorded: in part, or damaged.

What is changed are the recordings themselves, so that a repair, the choice of bodies and every view meet
what they would meet in recordings that are so. Less of one kind of damage is part of more of it, where the
random numbers are the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.frames import spatial_of
from ssl_skeleton.data.store import Store

Indices = NDArray[np.int64]
Frames = NDArray[np.float32]


def part_of(store: Store, clips: Indices) -> Store:
    """The clips (N,) of a store alone, in that order."""
    begin_n, end_n = (np.searchsorted(store.tracks[:, 0], clips, side) for side in ("left", "right"))
    chosen_k = _ranges(begin_n, end_n - begin_n)
    _, row_k, first_k, frames_k = store.tracks[chosen_k].T
    clip_k = np.repeat(np.arange(len(clips)), end_n - begin_n)
    tracks = np.stack([clip_k, np.cumsum(frames_k) - frames_k, first_k, frames_k], axis=1)
    names = tuple(store.names[clip] for clip in clips.tolist())
    columns = {name: column[clips] for name, column in store.columns.items()}
    frames_rvc = store.frames_rvc[_ranges(row_k, frames_k)]
    return _changed(store, frames_rvc, tracks=tracks, names=names, columns=columns)


def beginnings(store: Store, share: float) -> Store:
    """Every clip up to this share of its frames, rounded to whole frames: at least the first one.

    A body that comes later keeps its track, in which it is not seen.
    """
    lengths = np.rint(share * store.lengths).astype(np.int64).clip(1)
    clip_k, row_k, first_k, frames_k = store.tracks.T
    left_k = np.minimum(frames_k, lengths[clip_k] - first_k)
    count_k = left_k.clip(1)
    first_k = np.minimum(first_k, lengths[clip_k] - 1)
    tracks = np.stack([clip_k, np.cumsum(count_k) - count_k, first_k, count_k], axis=1)
    frames_rvc = store.frames_rvc[_ranges(row_k, count_k)]
    frames_rvc[tracks[left_k < 1, 1]] = 0
    return _changed(store, frames_rvc, tracks=tracks, columns=store.columns | {"frames": lengths})


def without_joints(store: Store, share: float, rng: np.random.Generator, *, throughout: bool) -> Store:
    """Every body without this share of its joints, rounded to whole joints, of which one at least stays.

    Which ones they are is random: the same `throughout` a clip, or others in every frame. Joints that were
    missing before may be among them. The root of recordings that are relative to it cannot be missing.
    """
    rows, joints, _ = store.frames_rvc.shape
    count = min(round(share * joints), joints - 1)
    if not count:
        return store
    order = rng.random((len(store.tracks) if throughout else rows, joints))
    if store.root_at_zero:
        order[:, store.layout.index(store.layout.root)] = 1
    gone = order <= np.partition(order, count - 1, axis=1)[:, count - 1 : count]
    if throughout:
        gone = np.repeat(gone, store.tracks[:, 3], axis=0)
    return _changed(store, np.where(gone[..., None], np.float32(0), store.frames_rvc))


def with_noise(store: Store, deviation: float, rng: np.random.Generator) -> Store:
    """Every joint that is there moved by noise of this standard deviation on each of x, y and z.

    It is in the unit of the recorded coordinates, and other noise in every frame, as a sensor's is. Other
    coordinates, such as a confidence, stay.
    """
    x_rvc, space = np.array(store.frames_rvc), spatial_of(store.meta.coordinates)
    noise_rvc = rng.standard_normal((*x_rvc.shape[:2], space), dtype=np.float32)
    noise_rvc *= np.float32(deviation)
    noise_rvc *= _seen(x_rvc)[..., None]
    x_rvc[..., :space] += noise_rvc
    return _changed(store, x_rvc)


def turned_about_vertical(store: Store, degrees: float, rng: np.random.Generator) -> Store:
    """Every clip turned by an angle of its own, up to so many degrees either way; coordinates are x, y, z.

    The axis is the vertical through the middle of all that is seen in the clip: as if the camera stood
    elsewhere around those whom it sees. Of recordings that are relative to the root, it goes through that.
    """
    x_rvc = np.array(store.frames_rvc)
    clip_r, seen_rv = np.repeat(store.tracks[:, 0], store.tracks[:, 3]), _seen(x_rvc)
    angle_n = np.radians(degrees) * rng.uniform(-1, 1, len(store))
    cosine_r1, sine_r1 = (part(angle_n)[clip_r, None].astype(np.float32) for part in (np.cos, np.sin))
    middle_r12 = _middles(store, [0, 2])[clip_r, None]
    across_rv, deep_rv = np.moveaxis(x_rvc[..., [0, 2]] - middle_r12, 2, 0)
    turned_rv2 = np.stack(
        [cosine_r1 * across_rv + sine_r1 * deep_rv, cosine_r1 * deep_rv - sine_r1 * across_rv], 2
    )
    x_rvc[..., [0, 2]] = (turned_rv2 + middle_r12) * seen_rv[..., None]
    return _changed(store, x_rvc)


def resized(store: Store, level: float, rng: np.random.Generator) -> Store:
    """Every clip larger or smaller by a factor of its own, 1 up to +- `level` (below 1), about its middle.

    Larger bodies walk further. The middle is that of all that is seen in the clip; of recordings that are
    relative to the root, it is that. Other coordinates than x, y and z stay.
    """
    x_rvc, space = np.array(store.frames_rvc), spatial_of(store.meta.coordinates)
    clip_r, seen_rv = np.repeat(store.tracks[:, 0], store.tracks[:, 3]), _seen(x_rvc)
    factor_r11 = (1 + level * rng.uniform(-1, 1, len(store)))[clip_r, None, None].astype(np.float32)
    middle_r1c = _middles(store, range(space))[clip_r, None]
    x_rvc[..., :space] = (factor_r11 * (x_rvc[..., :space] - middle_r1c) + middle_r1c) * seen_rv[..., None]
    return _changed(store, x_rvc)


def _middles(store: Store, axes: Sequence[int]) -> Frames:
    """The middle of all that is seen in each clip, (N, A) on these axes; 0 where all is about the root."""
    if store.root_at_zero:
        return np.zeros((len(store), len(axes)), np.float32)
    x_rvc, clip_r = store.frames_rvc, np.repeat(store.tracks[:, 0], store.tracks[:, 3])
    seen_n = np.bincount(clip_r, _seen(x_rvc).sum(axis=1), len(store)).clip(1)
    sums = [np.bincount(clip_r, x_rvc[..., axis].sum(axis=1, dtype=float), len(store)) for axis in axes]
    middles: Frames = (np.stack(sums, axis=1) / seen_n[:, None]).astype(np.float32)
    return middles


def without_frames(store: Store, share: float, rng: np.random.Generator) -> Store:
    """Every clip without this share of the frames between its first and its last, which are random ones.

    It is as long as before, as the times of the frames are known: in between, everything goes in straight
    lines from frame to frame. What only one of the two frames shows is there where that one is the nearer, if
    the body has a track there.
    """
    lengths = store.lengths
    clip_f = np.repeat(np.arange(len(store)), lengths)
    begin_n = np.cumsum(lengths) - lengths
    frame_f = np.arange(len(clip_f))
    order_f = rng.random(len(clip_f))
    order_f[begin_n] = order_f[begin_n + lengths - 1] = 1
    place_f = np.empty_like(frame_f)  # of a frame among those of its clip, in order of loss
    place_f[np.lexsort((order_f, clip_f))] = frame_f - begin_n[clip_f]
    kept_f = place_f >= np.rint(share * (lengths - 2).clip(0))[clip_f]
    before_f = np.maximum.accumulate(np.where(kept_f, frame_f, 0))
    after_f = np.minimum.accumulate(np.where(kept_f, frame_f, len(frame_f))[::-1])[::-1]
    clip_k, row_k, first_k, frames_k = store.tracks.T
    frame_r = _ranges(begin_n[clip_k] + first_k, frames_k)
    lost_s = np.flatnonzero(~kept_f[frame_r])
    track_s = np.repeat(np.arange(len(store.tracks)), frames_k)[lost_s]
    ends = (row_k[track_s], (row_k + frames_k)[track_s])
    before_s, after_s = (other_f[frame_r[lost_s]] - frame_r[lost_s] for other_f in (before_f, after_f))
    share_s = -before_s / (after_s - before_s)
    x_rvc = np.array(store.frames_rvc)
    x_rvc[lost_s] = _between(store.frames_rvc, lost_s + before_s, lost_s + after_s, share_s, ends)
    return _changed(store, x_rvc)


def at_another_tempo(store: Store, level: float, rng: np.random.Generator) -> Store:
    """Every clip faster in its middle and slower at its ends, or the other way round; as long as before.

    At the share u of a clip that is seen which was at u + a sin(2 pi u) / (2 pi), with an `a` of its own for
    every clip, up to `level` (below 1) either way: so its tempo goes from 1 + a to 1 - a and back. Between
    two frames everything goes in a straight line; what only one of them shows is there where that one is the
    nearer.
    """
    bend_n = level * rng.uniform(-1, 1, len(store))
    clip_k, row_k, first_k, frames_k = store.tracks.T
    lengths = store.lengths
    parts, tracks, rows = [], [], 0
    for clip, row, first, frames in zip(clip_k, row_k, first_k, frames_k, strict=True):
        last = lengths[clip] - 1
        frame_f = np.arange(last + 1)
        bend_f = np.sin(2 * np.pi * frame_f / max(last, 1)) / (2 * np.pi)
        source_f = (frame_f + bend_n[clip] * last * bend_f).clip(0, last)
        near_f = np.rint(source_f)
        begin, end = np.searchsorted(near_f, [first, first + frames])
        if begin == end:  # seen too shortly to be met: it keeps one frame, in which it is not seen
            begin, end = min(begin, last), min(begin, last) + 1
        source_s = source_f[begin:end]
        one_s = np.floor(source_s).astype(np.int64)
        two_s = np.minimum(one_s + 1, last)
        ends = np.full_like(one_s, row), np.full_like(one_s, row + frames)
        at = row - first
        parts.append(_between(store.frames_rvc, one_s + at, two_s + at, source_s - one_s, ends))
        tracks.append((clip, rows, begin, end - begin))
        rows += end - begin
    return _changed(store, np.concatenate(parts), tracks=np.array(tracks, dtype=np.int64))


def _between(
    frames_rvc: Frames,
    one_s: Indices,
    two_s: Indices,
    share_s: NDArray[np.float64],
    ends: tuple[Indices, Indices],
) -> Frames:
    """What is seen in between two rows of a track, from begin to end: (S, V, C) at shares of the way.

    What only one of the two shows is there where that one is the nearer.
    """
    share_s1 = share_s[:, None].astype(np.float32)
    (one_svc, one_sv), (two_svc, two_sv) = (
        _rows_inside(frames_rvc, row_s, *ends) for row_s in (one_s, two_s)
    )
    near_sv = np.where(share_s1 > 0.5, two_sv, one_sv)
    weight_sv = np.where(one_sv & two_sv, share_s1, two_sv).astype(np.float32)
    found: Frames = (one_svc + weight_sv[..., None] * (two_svc - one_svc)) * near_sv[..., None]
    return found


def _rows_inside(
    frames_rvc: Frames, row_s: Indices, begin_s: Indices, end_s: Indices
) -> tuple[Frames, NDArray[np.bool_]]:
    """The rows (S, V, C) and which of their joints are seen (S, V); nothing outside of begin to end."""
    inside_s = (row_s >= begin_s) & (row_s < end_s)
    x_svc = frames_rvc[np.where(inside_s, row_s, 0)] * inside_s[:, None, None]
    return x_svc, _seen(x_svc)


def _seen(x_rvc: Frames) -> NDArray[np.bool_]:
    """Which joints are there: any coordinate is not zero, bool (R, V)."""
    seen_rv: NDArray[np.bool_] = (x_rvc != 0).any(axis=2)
    return seen_rv


def _ranges(starts: Indices, counts: Indices) -> Indices:
    """So many numbers from each start on, one range after another."""
    ranges: Indices = np.arange(counts.sum()) + np.repeat(starts - np.cumsum(counts) + counts, counts)
    return ranges


def _changed(store: Store, frames_rvc: Frames, **others: Any) -> Store:
    """The store with other frames, and others of its fields."""
    changed = replace(store, frames_rvc=frames_rvc, **others)
    counts = {"clips": len(changed), "tracks": len(changed.tracks), "rows": len(frames_rvc)}
    changed = replace(changed, meta=store.meta.model_copy(update=counts))
    # Where every root is missing from what is left, it is missing still, and not the origin.
    vars(changed)["root_at_zero"] = store.root_at_zero
    return changed
