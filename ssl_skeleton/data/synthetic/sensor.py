"""What a depth camera makes of moving bodies: a view, its noise, and the lines of an NTU `.skeleton` file."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.synthetic.body import LAYOUT, Array

YAWS = {1: 0.0, 2: -45.0, 3: 45.0}  # degrees around the stage; camera 1 in the middle, as in NTU
_TILTS = {1: 0.0, 2: 2.0, 3: -1.5}  # degrees, added to the setup's
_SETUPS = {1: (1.15, 3.1, 3.0), 2: (1.7, 3.4, 12.0)}  # height and distance in metres, tilt down in degrees

_FIRST_BODY_ID = 72057594037927936
_HARD_TO_SEE = ("hand", "wrist", "thumb", "foot", "ankle")
_LEAVES = [LAYOUT.index(joint) for joint in LAYOUT.joints if joint not in LAYOUT.bones.values()]
_JOINT_LINE = "%.7g " * 3 + "%.6g " * 8 + "%d\n"
_JOINT_LINES = f"{len(LAYOUT.joints)}\n" + _JOINT_LINE * len(LAYOUT.joints)


@dataclass(frozen=True)
class Sight:
    """What one camera saw.

    Coordinates (M, T, V, 3) in metres, joints that it only inferred (M, T, V), frames with anybody (T,).
    """

    x_mtvc: Array
    inferred_mtv: NDArray[np.bool_]
    seen_t: NDArray[np.bool_]


def view(world_mtvc: Array, setup: int, camera: int) -> Array:
    """World coordinates as a camera has them: x to its left, y up, z away from it."""
    height, distance, tilt = _SETUPS[setup]
    yaw, tilt = np.radians(YAWS[camera]), np.radians(tilt + _TILTS[camera])
    around = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    down = np.array([[1, 0, 0], [0, np.cos(tilt), np.sin(tilt)], [0, -np.sin(tilt), np.cos(tilt)]])
    return np.asarray((world_mtvc @ around.T + (0, -height, distance)) @ down.T)


def sense(x_mtvc: Array, rng: np.random.Generator) -> Sight:
    """Add what goes wrong in a recording: jitter, drift, joints that are lost, frames that are empty."""
    bodies, frames, joints, _ = x_mtvc.shape
    hard = np.array([any(part in joint for part in _HARD_TO_SEE) for joint in LAYOUT.joints])
    far = np.maximum(x_mtvc[..., 2:], 1) / 3
    noise = np.where(hard, 0.006, 0.003)[:, None] * far * rng.standard_normal(x_mtvc.shape)
    steps = np.arange(frames)[:, None, None] / 30
    hertz, phase = (
        rng.uniform(0.3, 3, (2, bodies, 1, joints, 3)),
        rng.uniform(0, 2 * np.pi, (2, bodies, 1, joints, 3)),
    )
    drift = np.where(hard, 0.012, 0.006)[:, None] * np.sin(2 * np.pi * hertz * steps + phase).sum(axis=0)
    x_mtvc = x_mtvc + noise + drift
    inferred = np.zeros(x_mtvc.shape[:3], bool)
    for body in range(bodies):
        for _ in range(rng.poisson(3.0)):
            _lose_joint(x_mtvc[body], inferred[body], hard, rng)
    seen = np.ones(frames, bool)
    if rng.random() < 0.08:
        first = int(rng.integers(1, frames - 3))
        seen[first : first + int(rng.integers(1, 3))] = False
    return Sight(x_mtvc, inferred, seen)


def _lose_joint(
    x_tvc: Array, inferred_tv: NDArray[np.bool_], hard: NDArray[np.bool_], rng: np.random.Generator
) -> None:
    """Let a joint freeze for some frames, in place; half the time it jumps aside first."""
    frames, joints, _ = x_tvc.shape
    joint = int(rng.choice(joints, p=np.where(hard, 4.0, 1.0) / np.where(hard, 4.0, 1.0).sum()))
    first, length = int(rng.integers(1, frames - 2)), int(rng.integers(3, 16))
    aside = rng.normal(0, 0.08, 3) * (rng.random() < 0.5)
    lost = x_tvc[first : first + length, joint]
    lost[:] = x_tvc[first - 1, joint] + aside + rng.normal(0, 0.002, lost.shape)
    inferred_tv[first : first + length, joint] = True


def skeleton_text(sight: Sight, rng: np.random.Generator) -> str:
    """The lines of an NTU `.skeleton` file."""
    values = _joint_values(sight)
    bodies, frames = values.shape[:2]
    heads = [f"{_FIRST_BODY_ID + int(rng.integers(1000, 60000)) * 2 + body}" for body in range(bodies)]
    leans = _leans(sight.x_mtvc)
    lines = [f"{frames}\n"]
    for frame in range(frames):
        if not sight.seen_t[frame]:
            lines.append("0\n")
            continue
        lines.append(f"{bodies}\n")
        for body in range(bodies):
            x, y = leans[body, frame]
            lines.append(f"{heads[body]} 0 1 1 1 1 0 {x:.6g} {y:.6g} 2\n")
            lines.append(_JOINT_LINES % tuple(values[body, frame].ravel().tolist()))
    return "".join(lines)


def _joint_values(sight: Sight) -> Array:
    """The 12 values of every joint, (M, T, V, 12)."""
    x, y, z = np.moveaxis(sight.x_mtvc, -1, 0)
    right, up = x / z, y / z
    depth = [256 + 366 * right, 212 - 366 * up]
    colour = [970 + 1060 * right, 535 - 1060 * up]
    pixels = np.round(np.stack([*depth, *colour], axis=-1), 4)
    tracking = np.where(sight.inferred_mtv, 1.0, 2.0)[..., None]
    turns = np.round(_orientations(sight.x_mtvc), 6)
    return np.concatenate([np.round(sight.x_mtvc, 7), pixels, turns, tracking], axis=-1)


def _orientations(x_mtvc: Array) -> Array:
    """Quaternions w x y z (M, T, V, 4) that turn the y axis along each joint's bone; zeros at the ends."""
    bone = x_mtvc - x_mtvc[..., list(LAYOUT.parents), :]
    bone[..., LAYOUT.index(LAYOUT.root), 1] = 1  # the root has no bone: upright
    x, y, z = np.moveaxis(bone / np.maximum(np.linalg.norm(bone, axis=-1, keepdims=True), 1e-6), -1, 0)
    half = np.sqrt(np.maximum((1 + y) / 2, 1e-9))
    turns = np.stack([half, z / (2 * half), np.zeros_like(x), -x / (2 * half)], axis=-1)
    turns[..., _LEAVES, :] = 0
    return turns


def _leans(x_mtvc: Array) -> Array:
    """How far the trunk leans right and forward, (M, T, 2), in -1..1."""
    trunk = x_mtvc[..., LAYOUT.index("upper_spine"), :] - x_mtvc[..., LAYOUT.index(LAYOUT.root), :]
    return np.clip(trunk[..., [0, 2]] * (1, -1) / 0.5, -1, 1)
