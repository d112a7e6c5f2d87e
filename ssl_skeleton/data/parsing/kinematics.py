"""From the angles of joints to their places: rotations and forward kinematics over all frames at once."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.errors import DamagedClip

Array = NDArray[np.float64]

_LEAST_BYTES = 6  # three numbers of one digit: no real file has fewer for a joint in a frame
_PLACES_AT_ONCE = 1 << 16


def turn_matrices(angles_tk: Array, axes: str) -> Array:
    """Rotations by K angles about coordinate axes.

    Args:
        angles_tk: radians, (T, K).
        axes: K of x, y, z. The matrices stand in this order, so the last one turns a column vector first.

    Returns:
        (T, 3, 3), to be multiplied with column vectors; right-handed.
    """
    turn_tij = np.broadcast_to(np.eye(3), (len(angles_tk), 3, 3))
    for angle_t, axis in zip(angles_tk.T, axes, strict=True):
        one, two = ((1, 2), (2, 0), (0, 1))["xyz".index(axis)]  # the axis turns `one` towards `two`
        factor_tij = np.zeros((len(angles_tk), 3, 3))
        factor_tij[:] = np.eye(3)
        factor_tij[:, one, one] = factor_tij[:, two, two] = np.cos(angle_t)
        factor_tij[:, two, one] = np.sin(angle_t)
        factor_tij[:, one, two] = -factor_tij[:, two, one]
        turn_tij = turn_tij @ factor_tij
    return turn_tij


def place_joints(parents: Sequence[int], turns_vtij: Sequence[Array], shifts_vtc: Sequence[Array]) -> Array:
    """Where the joints of a tree are.

    Args:
        parents: of every joint, an earlier one; -1 for the root, which comes first.
        turns_vtij: how each joint is turned in the coordinates of its parent, (T, 3, 3) each.
        shifts_vtc: where it lies in them, (T, 3) each.

    Returns:
        (T, V, 3), in the coordinates of the root's parent.
    """
    turned: list[Array] = []
    placed: list[Array] = []
    for parent, turn_tij, shift_tc in zip(parents, turns_vtij, shifts_vtc, strict=True):
        if parent < 0:
            turned.append(turn_tij)
            placed.append(shift_tc)
        else:
            turned.append(turned[parent] @ turn_tij)
            placed.append(placed[parent] + (turned[parent] @ shift_tc[:, :, None])[:, :, 0])
    return np.stack(placed, axis=1)


def frame_blocks(frames: int, joints: int, size: int) -> list[slice]:
    """The frames of a clip, some at a time, so that matrices for all of them need not be held at once.

    Raises DamagedClip when a file of `size` bytes cannot hold so many: joints that do not move cost a file
    nothing, but time and memory here. One block is always allowed.
    """
    if frames * joints > _PLACES_AT_ONCE + size // _LEAST_BYTES:
        raise DamagedClip(f"{frames} frames of {joints} joints are too many for a file of {size} bytes")
    step = max(_PLACES_AT_ONCE // joints, 1)
    return [slice(start, min(start + step, frames)) for start in range(0, frames, step)]
