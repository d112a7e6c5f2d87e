"""Writes MediaPipe's landmarks as people export them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from own_files import about_file, write_table

LEFT_HIP, RIGHT_HIP = 23, 24


def image_landmarks(frames: int = 5, seed: int = 0) -> NDArray[np.float64]:
    """Somebody in the middle of the image, (T, 33, 4): x, y, z, visibility."""
    rng = np.random.default_rng(seed)
    x_tvc = rng.uniform([0.4, 0.1, -0.2, 0.3], [0.6, 0.9, 0.2, 1], (33, 4))
    return (x_tvc + rng.normal(0, 0.003, (frames, 33, 4))).clip(-1, 1).round(5)


def world_landmarks(frames: int = 5, seed: int = 0) -> NDArray[np.float64]:
    """The same kind in metres, from the middle of the hips."""
    rng = np.random.default_rng(seed)
    x_tvc = rng.uniform([-0.3, -0.8, -0.3, 0.3], [0.3, 0.8, 0.3, 1], (33, 4))
    x_tvc = x_tvc + rng.normal(0, 0.01, (frames, 33, 4))
    x_tvc[..., :3] -= x_tvc[:, [LEFT_HIP, RIGHT_HIP], :3].mean(axis=1, keepdims=True)
    return x_tvc.clip(-1, 1).round(5)


def as_dicts(x_tvc: NDArray[np.float64]) -> list[list[dict[str, Any]]]:
    """Frames of landmarks with names for their coordinates."""
    keys = ("x", "y", "z", "visibility")
    return [[dict(zip(keys, mark, strict=True)) for mark in pose] for pose in x_tvc.tolist()]


def write_landmarks_table(path: Path, x_tvc: NDArray[np.float64]) -> Path:
    """A CSV file, landmarks by number."""
    lines = [
        [str(frame), str(mark), *map(repr, values)]
        for frame, pose in enumerate(x_tvc.tolist())
        for mark, values in enumerate(pose)
    ]
    return write_table(path, lines, "frame,landmark,x,y,z,visibility")


def write_example(folder: Path) -> Path:
    """Three clips, in three forms; gives the path of the about file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wave_s1.json").write_text(json.dumps(as_dicts(image_landmarks(3, 1)), indent=0))
    frames = [*image_landmarks(4, 2).tolist(), None]
    (folder / "walk_s2.json").write_text(json.dumps({"frames": frames}))
    write_landmarks_table(folder / "sit_s3.csv", image_landmarks(2, 3))
    return about_file(folder.parent, layout=None, names="{label}_s{subject}")
