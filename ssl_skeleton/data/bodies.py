"""What tells the bodies of a clip apart: persons from phantoms, the stronger from the weaker."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.store import row_blocks, track_blocks

# What tells a phantom (a chair, a reflection) from a person, as is usual for NTU RGB+D.
_SHORT_FRAMES = 10
_WIDE_RATIO = 0.8  # a frame is implausible where the body is wider than this share of its height
_WIDE_SHARE = 0.7  # a body is a phantom when more than this share of its frames is implausible


def persons(bodies: Sequence[NDArray[np.float32]]) -> list[int]:
    """Which bodies are no phantoms, the one that moves most first.

    A body of at most 10 frames is a phantom when another one lives longer, and so is one that is wider
    than 0.8 of its height in most (more than 70 %) of its frames when another one is not. So the last body
    always stays.

    Args:
        bodies: of each body the T >= 1 frames in which it is seen, (T, V, 2 or 3), x across and y up.
    """
    every = list(range(len(bodies)))
    if len(bodies) <= 1:
        return every
    long = [body for body in every if len(bodies[body]) > _SHORT_FRAMES] or every
    plausible = [body for body in long if not is_wide(bodies[body])] or long
    return sorted(plausible, key=lambda body: motion(bodies[body]), reverse=True)


def motion(x_tvc: NDArray[np.float32]) -> float:
    """How much a body moves: the spread of each coordinate over frames and joints, the usual measure."""
    return float(x_tvc.std(axis=(0, 1), dtype=np.float64).sum())


def by_motion(
    tracks: NDArray[np.int64], show: Callable[[slice], tuple[NDArray[np.float32], NDArray[np.bool_]]]
) -> NDArray[np.int64]:
    """The tracks (K, 4) of a store with those of each clip in order of their motion, most first.

    Of equal ones, the first that is stored comes first. `tracks` are sorted by clip and follow each other, as
    in a store; `show` gives the frames of some rows, and which joints are seen, as `track_motion` takes them.
    """
    motion_k = np.empty(len(tracks))
    for some in track_blocks(tracks):
        first, end = tracks[some][0, 1], tracks[some][-1, [1, 3]].sum()
        motion_k[some] = track_motion(tracks[some] - (0, first, 0, 0), *show(slice(first, end)))
    return tracks[np.lexsort((-motion_k, tracks[:, 0]))]


def track_motion(
    tracks: NDArray[np.int64], frames_rvc: NDArray[np.float32], seen_rv: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """How much each of K tracks moves, (K,): the spread of each coordinate over frames and joints, summed.

    It is `motion` of what is seen: a missing joint is no point. The spread is the standard deviation,
    in the unit of the coordinates; 0 where nothing is seen.

    Args:
        tracks: of each track its clip, first row, first frame and number of frames, (K, 4).
        frames_rvc: the frames of all tracks, zero where nothing is seen.
        seen_rv: which joints are seen, (R, V), or (R, 1) where bodies are seen as a whole.
    """
    rows, joints, coordinates = frames_rvc.shape
    sums_rs = np.zeros((rows + 1, 1 + 2 * coordinates))  # reduceat takes no end behind its array
    for block in row_blocks(rows):
        x_rvc = frames_rvc[block].astype(np.float64)
        sums_rs[block, 0] = seen_rv[block].sum(axis=1) * (joints // seen_rv.shape[1])
        sums_rs[block, 1 : 1 + coordinates] = x_rvc.sum(axis=1)
        sums_rs[block, 1 + coordinates :] = (x_rvc * x_rvc).sum(axis=1)
    ends = np.stack([tracks[:, 1], tracks[:, 1] + tracks[:, 3]], axis=1)
    sums_ks = np.add.reduceat(sums_rs, ends.ravel(), axis=0)[::2]
    mean_ks = sums_ks[:, 1:] / np.maximum(sums_ks[:, :1], 1)
    variance_kc = mean_ks[:, coordinates:] - mean_ks[:, :coordinates] ** 2
    motion_k: NDArray[np.float64] = np.sqrt(variance_kc.clip(min=0)).sum(axis=1)
    return motion_k


def is_wide(x_tvc: NDArray[np.float32]) -> bool:
    """Whether a body is too wide for a person in most of its frames."""
    width, height = np.ptp(x_tvc[..., :2], axis=1).T
    return float(np.mean(width > _WIDE_RATIO * height)) > _WIDE_SHARE
