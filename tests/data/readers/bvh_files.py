"""Writes BVH files in the manner of MotionBuilder and Mixamo, for the tests of their reader."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROTATIONS = "Zrotation Yrotation Xrotation"
_LIMBS = """
UpLeg Hips 9 -2 0
Leg UpLeg 0 -43 0
Foot Leg 0 -42 -2
ToeBase Foot 0 -5 14
Shoulder Spine1 4 12 0
Arm Shoulder 13 0 0
ForeArm Arm 29 0 0
Hand ForeArm 26 0 0
HandIndex1 Hand 9 0 2
"""
_MIDDLE = "Hips - 0 0 0\nSpine Hips 0 10 0\nSpine1 Spine 0 14 0\nNeck Spine1 0 24 0\nHead Neck 0 10 2"

Body = Sequence[tuple[str, str, tuple[float, ...]]]  # name, parent, offset: parents first


def body() -> Body:
    """A skeleton of 23 joints, in centimetres."""
    joints = []
    for side, sign in (("", 1), ("Left", 1), ("Right", -1)):
        for line in (_LIMBS if side else _MIDDLE).strip().splitlines():
            name, parent, *offset = line.split()
            x, y, z = map(float, offset)
            parent = parent if parent in ("Hips", "Spine", "Spine1", "Neck", "-") else side + parent
            joints.append((side + name, parent, (sign * x, y, z)))
    return joints


def hierarchy(joints: Body, parent: str = "-", depth: int = 0) -> list[str]:
    """The lines of the joints below a parent."""
    lines, space = [], "\t" * depth
    for name, over, offset in joints:
        if over != parent:
            continue
        position = "Xposition Yposition Zposition " if parent == "-" else ""
        lines += [f"{space}{'ROOT' if parent == '-' else 'JOINT'} {name}", f"{space}{{"]
        lines += [f"{space}\tOFFSET {' '.join(f'{value:.6f}' for value in offset)}"]
        lines += [f"{space}\tCHANNELS {6 if position else 3} {position}{ROTATIONS}"]
        below = hierarchy(joints, name, depth + 1)
        end = [
            f"{space}\tEnd Site",
            f"{space}\t{{",
            f"{space}\t\tOFFSET 0.000000 4.000000 0.000000",
            f"{space}\t}}",
        ]
        lines += [*(below or end), f"{space}}}"]
    return lines


def bvh_text(
    joints: Body | None = None, frames: int = 4, seed: int = 0, frame_time: float = 0.0333333
) -> str:
    """A file as it stands on disk: somebody who moves at random."""
    joints = body() if joints is None else joints
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 20, (frames, 3 + 3 * len(joints)))
    values[:, :3] = 0, 93, 10
    rows = [" ".join(f"{value:.6f}" for value in row) + " " for row in values]
    head = ["HIERARCHY", *hierarchy(joints), "MOTION", f"Frames: {frames}", f"Frame Time: {frame_time}"]
    return "\n".join([*head, *rows, ""])


def write_example(folder: Path) -> Path:
    """Write three clips below `folder`; the about file, which tells the unit, stands beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, clip in enumerate(("walk_1", "walk_2", "jump_1")):
        (folder / f"{clip}.bvh").write_text(bvh_text(frames=3 + seed, seed=seed))
    about = folder.parent / "about.yaml"
    about.write_text(
        'dataset: walks\nfps: 30\nunit: 0.01\nnames: "{label}_{repetition}"\nclasses: [walk, jump]\n'
    )
    return about
