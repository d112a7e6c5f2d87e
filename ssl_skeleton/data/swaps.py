"""Which person each body track shows, where a tracker exchanged its ids or began new ones."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Frames = NDArray[np.float32]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Lengths are shares of the size of the clip's bodies, since a store may hold metres or pixels.
_REACH = 0.15  # how far a body's joints may move, on average, from one frame to the next
_DRIFT = 0.03  # how much farther for each frame between in which it was not seen: a brisk walk
_MEMORY = 10  # frames after which the place where a body was last seen says nothing any more


def follow(x_mtvc: Frames, present_mtv: Mask) -> Indices:
    """Which person each of M tracks shows in each frame, (M, T), each numbered as the track it begins with.

    At first every track is a person of its own, and it stays so as long as nothing speaks against it. The
    displacement of a person is the mean distance of its joints from where they were last seen; it may
    reach 0.15 of the bodies' size (the median diagonal of their boxes) from one frame to the next, and
    0.03 more for each frame between in which the person was not seen, which is farther than anybody walks. So
    bodies that pass each other, seen or not, are safe. In each frame the persons are given to the tracks so
    that the sum of these costs is least:

    - a person stays with its track: the displacement less its reach, a margin against exchange;
    - a person goes to another track: the displacement;
    - a person not seen for the last 10 frames, or never before: one reach of 0.15 if it stays, two if it goes
      to another track, since nothing is known of where it is.

    A person whose own track is not seen in that frame only goes to a track within its reach.

    So two persons change places when they are then together nearer to their last poses by more than they
    may have moved; and a track that begins, or is seen again after more than 10 frames, continues a person
    lost at most 10 frames before when it lies within 0.15 of its last pose. Exchanges of bodies closer to
    each other than the reach are not found. Whoever loses its track takes the one that is free.
    """
    bodies, frames, _ = present_mtv.shape
    seen_mt = np.asarray(present_mtv.any(axis=2))
    last_mt = _last_seen(seen_mt)
    size = _size(x_mtvc[seen_mt], present_mtv[seen_mt])
    person_m = np.arange(bodies)
    person_mt = np.repeat(person_m[:, None], frames, axis=1)
    frame_p, body_p = np.full(bodies, -1), np.arange(bodies)  # where each person was last seen
    event = 0
    for t in _doubtful(x_mtvc, present_mtv, last_mt, _REACH * size):
        fresh = np.flatnonzero(last_mt[:, t] >= event)  # sights since the last event, of whom they are now
        frame_p[person_m[fresh]], body_p[person_m[fresh]] = last_mt[fresh, t], fresh
        event = t
        here = np.flatnonzero(seen_mt[:, t])
        distance_mp = _distance(
            x_mtvc[here, None, t],
            x_mtvc[body_p, frame_p][None],
            present_mtv[here, None, t] & present_mtv[body_p, frame_p][None],
        )
        missed_p = np.where(frame_p >= 0, t - frame_p - 1, _MEMORY)
        distance_mp[:, missed_p >= _MEMORY] = np.inf
        reach_p = size * (_REACH + _DRIFT * missed_p)
        known = _assign(distance_mp, reach_p, _REACH * size, here, person_m)
        if (known != person_m).any():
            person_m = known
            person_mt[:, t:] = person_m[:, None]
    return person_mt


def _assign(
    distance_mp: NDArray[np.float64],
    reach_p: NDArray[np.float64],
    reach: float,
    here: Indices,
    person_m: Indices,
) -> Indices:
    """The persons of all tracks after the cheapest choice for the tracks `here`; infinite: unknown."""
    unknown = ~np.isfinite(distance_mp)
    home = np.isin(np.arange(len(person_m)), person_m[here])
    cost_mp = np.where(unknown, 2 * reach, distance_mp)
    cost_mp[~home & ~(distance_mp <= reach_p)] = np.inf
    own = np.arange(len(here)), person_m[here]
    cost_mp[own] = np.where(unknown, reach, distance_mp - reach_p)[own]
    _, chosen = linear_sum_assignment(cost_mp)
    after_m = np.full_like(person_m, -1)
    after_m[here] = chosen
    free = ~np.isin(person_m, chosen)  # persons whose track is free to keep them
    stays = free & (after_m < 0)
    after_m[stays] = person_m[stays]
    after_m[after_m < 0] = np.setdiff1d(person_m, after_m)
    return after_m


def _doubtful(x_mtvc: Frames, present_mtv: Mask, last_mt: Indices, reach: float) -> list[int]:
    """The frames, ascending, in which a body comes, comes back or moves farther than `reach`.

    In all others, staying costs less than zero for every body, so that no exchange can be cheaper.
    """
    body, frame = np.nonzero(present_mtv.any(axis=2))
    last = last_mt[body, frame]
    step = _distance(
        x_mtvc[body, frame], x_mtvc[body, last], present_mtv[body, frame] & present_mtv[body, last]
    )
    frames: list[int] = np.unique(frame[(last < frame - 1) | (step > reach)]).tolist()
    return frames


def _last_seen(seen_mt: Mask) -> Indices:
    """The last frame before each in which a body is seen, (M, T); -1: none."""
    last_mt = np.full(seen_mt.shape, -1)
    last_mt[:, 1:] = np.where(seen_mt, np.arange(seen_mt.shape[1]), -1)[:, :-1]
    return np.asarray(np.maximum.accumulate(last_mt, axis=1))


def _size(x_kvc: Frames, present_kv: Mask) -> float:
    """The median diagonal of the boxes around K poses."""
    there = present_kv[..., None]
    low_kc, high_kc = np.where(there, x_kvc, np.inf).min(axis=1), np.where(there, x_kvc, -np.inf).max(axis=1)
    return float(np.median(np.linalg.norm(high_kc - low_kc, axis=1))) if len(x_kvc) else 0.0


def _distance(one: Frames, two: Frames, both: Mask) -> NDArray[np.float64]:
    """Mean distance (...) of the joints of poses (..., V, C) that `both` (..., V) have, infinite for none."""
    length = np.linalg.norm((one - two).astype(np.float64), axis=-1)
    count = both.sum(axis=-1)
    return np.where(count > 0, (length * both).sum(axis=-1) / np.maximum(count, 1), np.inf)
