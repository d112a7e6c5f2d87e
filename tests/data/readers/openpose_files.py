"""Writes OpenPose's JSON files, a folder a clip."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from own_files import about_file


def person(frames: int = 5, joints: int = 25, seed: int = 0, x: float = 300.0) -> NDArray[np.float64]:
    """Somebody who stands about pixel x, (T, V, 3): x, y, confidence."""
    rng = np.random.default_rng(seed)
    shape = rng.uniform([0, 100, 0.3], [80, 400, 1], (joints, 3))
    sway = np.concatenate([rng.normal(0, 2, (frames, joints, 2)).cumsum(0), np.zeros((frames, joints, 1))], 2)
    return (shape + sway + [x, 0, 0]).round(3)


def frame_text(people: Sequence[NDArray[np.float64]]) -> str:
    """A frame, with all that OpenPose writes."""
    nothing = {
        f"{part}_keypoints_{kind}": []
        for part in ("face", "hand_left", "hand_right", "pose")
        for kind in ("2d", "3d")
    }
    found = [
        {"person_id": [-1]} | nothing | {"pose_keypoints_2d": pose.reshape(-1).tolist()} for pose in people
    ]
    return json.dumps({"version": 1.3, "people": found})


def write_clip(
    folder: Path, frames: Sequence[Sequence[NDArray[np.float64]]], first: int = 0, video: str = "video"
) -> Path:
    """Write a clip: of each frame the people in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, people in enumerate(frames, first):
        (folder / f"{video}_{number:012d}_keypoints.json").write_text(frame_text(people))
    return folder


def write_example(folder: Path) -> Path:
    """Two clips: one person who is lost for a frame, and two people; gives the path of the about file."""
    one, left, right = person(), person(4, seed=1), person(4, seed=2, x=900)
    write_clip(folder / "wave_s1", [[pose] if frame != 2 else [] for frame, pose in enumerate(one)])
    write_clip(folder / "walk_s2", [list(pair) for pair in zip(left, right, strict=True)], first=7)
    return about_file(folder.parent, layout=None, names="{label}_s{subject}")
