"""A 25-joint body that moves by forward kinematics: joint angles over time in, coordinates out.

World axes: x to the frontal camera's left, y up from the floor at 0, z away from that camera; a body of
heading 0 looks at it, so its left lies at the smaller x.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.skeleton.layout import load_layout

Array = NDArray[np.float64]

LAYOUT = load_layout("kinect_v2_25")

# Bone of every joint from its parent when standing with the arms down, as a share of stature; the left
# side is the mirror image of the right.
_REST = {
    "mid_spine": (0.0, 0.155, 0.0),
    "upper_spine": (0.0, 0.13, 0.0),
    "neck": (0.0, 0.04, 0.0),
    "head": (0.0, 0.075, -0.012),
    "right_shoulder": (0.1, -0.022, 0.0),
    "right_elbow": (0.0, -0.16, 0.0),
    "right_wrist": (0.0, -0.142, 0.0),
    "right_hand": (0.0, -0.045, 0.0),
    "right_hand_tip": (0.0, -0.045, 0.0),
    "right_thumb": (-0.02, -0.035, -0.02),
    "right_hip": (0.046, -0.022, 0.0),
    "right_knee": (0.0, -0.242, 0.0),
    "right_ankle": (0.0, -0.232, 0.0),
    "right_foot": (0.0, -0.03, -0.07),
}
_ANKLE_HEIGHT, _FOOT_HEIGHT = 0.045, 0.015  # above the floor when standing, shares of stature
_STANCE_SOFTNESS = 0.012  # metres: how much lower a foot must be to bear the weight alone
_STEP_HEIGHT = 0.15  # metres: outweighs how a walker's feet differ in height


class Pose:
    """Joint angles over time in radians, by channel; a channel that was not set is at rest.

    Trunk: `heading` (turn to its left positive), `bend` (forward), `lean` (to its left), `twist`, `nod`
    (down), `gaze` (to its left). With `left_` or `right_` before them: `flex` (upper arm forward), `abduct`
    (outward), `open` (outward on a level), `roll` (inward about the upper arm), `elbow`, `wrist`, `hip`
    (thigh forward), `spread`, `knee`. `bear` is no angle: from -1, the right foot bears the body's weight, to
    1, the left one does; at 0 the lower one.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.channels: dict[str, Array] = {}

    def __getitem__(self, channel: str) -> Array:
        return self.channels.get(channel, np.zeros(self.frames))

    def add(self, **channels: Array | float) -> None:
        """Add angles, (T,) or one number, to the named channels."""
        for channel, angle in channels.items():
            self.channels[channel] = self[channel] + angle

    def mirrored(self) -> "Pose":
        """The same motion with left and right exchanged."""
        swap = {"left": "right", "right": "left"}
        result = Pose(self.frames)
        for channel, angle in self.channels.items():
            side, _, rest = channel.partition("_")
            if side in swap:
                result.channels[f"{swap[side]}_{rest}"] = angle
            else:
                result.channels[channel] = (
                    -angle if channel in ("heading", "lean", "twist", "gaze", "bear") else angle
                )
        return result


@dataclass(frozen=True)
class Body:
    """A build: stature in metres, the other lengths as factors of the usual share of it."""

    stature: float = 1.72
    arms: float = 1.0
    legs: float = 1.0
    trunk: float = 1.0
    width: float = 1.0

    def bone(self, joint: str) -> Array:
        """The bone that ends in `joint` at rest, (3,), metres."""
        name = joint.replace("left_", "right_")
        x, y, z = np.array(_REST[name]) * self.stature
        part = name.removeprefix("right_")
        if part in ("shoulder", "hip"):
            x *= self.width
        factor = {"elbow": self.arms, "wrist": self.arms, "knee": self.legs, "ankle": self.legs}.get(
            part, self.trunk if part.endswith("spine") else 1.0
        )
        return np.array([-x if joint.startswith("left_") else x, y * factor, z])


def move(pose: Pose, body: Body) -> Array:
    """The joints of `body` moving as `pose` says, (T, V, 3), metres.

    The foot that bears the weight stands on the floor and does not slide, so that bent knees lower the body
    and a gait carries it. The root starts at x = z = 0.
    """
    turn = _segments(pose)
    x_tvc = np.zeros((pose.frames, len(LAYOUT.joints), 3))
    for joint in sorted(LAYOUT.bones, key=_depth):
        parent = x_tvc[:, LAYOUT.index(LAYOUT.bones[joint])]
        x_tvc[:, LAYOUT.index(joint)] = parent + turn[joint] @ body.bone(joint)
    return x_tvc + _root(x_tvc, body.stature, pose["bear"])[:, None]


def _depth(joint: str) -> int:
    return 0 if joint == LAYOUT.root else 1 + _depth(LAYOUT.bones[joint])


def _segments(pose: Pose) -> dict[str, Array]:
    """The rotation (T, 3, 3) of the bone that ends in each joint."""
    hips = _rotation("y", pose["heading"])
    lower = (
        hips
        @ _rotation("y", pose["twist"] / 2)
        @ _rotation("z", pose["lean"])
        @ _rotation("x", -pose["bend"] / 2)
    )
    upper = lower @ _rotation("y", pose["twist"] / 2) @ _rotation("x", -pose["bend"] / 2)
    head = upper @ _rotation("y", pose["gaze"]) @ _rotation("x", -pose["nod"])
    turn = {"mid_spine": lower, "upper_spine": upper, "neck": upper, "head": head}
    for side, outward in (("left", -1.0), ("right", 1.0)):
        arm = (
            upper
            @ _rotation("y", -outward * pose[f"{side}_open"])
            @ _rotation("z", outward * pose[f"{side}_abduct"])
            @ _rotation("x", pose[f"{side}_flex"])
            @ _rotation("y", outward * pose[f"{side}_roll"])
        )
        forearm = arm @ _rotation("x", pose[f"{side}_elbow"])
        hand = forearm @ _rotation("x", pose[f"{side}_wrist"])
        thigh = hips @ _rotation("z", outward * pose[f"{side}_spread"]) @ _rotation("x", pose[f"{side}_hip"])
        shank = thigh @ _rotation("x", -pose[f"{side}_knee"])
        # The ankle keeps most of the sole level.
        foot = shank @ _rotation("x", 0.85 * (pose[f"{side}_knee"] - pose[f"{side}_hip"]))
        parts = {
            "shoulder": upper,
            "elbow": arm,
            "wrist": forearm,
            "hand": hand,
            "hand_tip": hand,
            "thumb": hand,
        }
        parts |= {"hip": hips, "knee": thigh, "ankle": shank, "foot": foot}
        turn |= {f"{side}_{part}": rotation for part, rotation in parts.items()}
    return turn


def _rotation(axis: str, angle: Array) -> Array:
    """Right-handed rotations (T, 3, 3) about a coordinate axis."""
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    result = np.tile(np.eye(3), (len(angle), 1, 1))
    result[:, first, first] = result[:, second, second] = np.cos(angle)
    result[:, second, first] = np.sin(angle)
    result[:, first, second] = -result[:, second, first]
    return result


def _root(x_tvc: Array, stature: float, bear: Array) -> Array:
    """Where the root (T, 3) must be for feet, given relative to it, to stand on the floor."""
    ankles = x_tvc[:, [LAYOUT.index("left_ankle"), LAYOUT.index("right_ankle")]]
    toes = x_tvc[:, [LAYOUT.index("left_foot"), LAYOUT.index("right_foot")], 1]
    soles = np.minimum(ankles[..., 1] - _ANKLE_HEIGHT * stature, toes - _FOOT_HEIGHT * stature)
    root = np.zeros((len(x_tvc), 3))
    root[:, 1] = -soles.min(axis=1)
    soles += _STEP_HEIGHT * np.stack([-bear, bear], axis=1)
    weight = 1 / (1 + np.exp(np.clip((soles - soles[:, ::-1]) / _STANCE_SOFTNESS, -50, 50)))
    between = (weight[1:] + weight[:-1]) / 2  # the same both ways in time
    step = -(between[..., None] * np.diff(ankles, axis=0)).sum(axis=1)
    root[1:, [0, 2]] = np.cumsum(step, axis=0)[:, [0, 2]]
    return root
