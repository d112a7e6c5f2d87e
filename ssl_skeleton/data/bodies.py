"""What tells the bodies of a clip apart: persons from phantoms, the stronger from the weaker."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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


def is_wide(x_tvc: NDArray[np.float32]) -> bool:
    """Whether a body is too wide for a person in most of its frames."""
    width, height = np.ptp(x_tvc[..., :2], axis=1).T
    return float(np.mean(width > _WIDE_RATIO * height)) > _WIDE_SHARE
