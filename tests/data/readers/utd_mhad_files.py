"""Writes UTD-MHAD's MATLAB files, for the tests of readers and of preparation."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

NAME = "a7_s3_t2_skeleton"


def person(frames: int = 4, seed: int = 0) -> NDArray[np.float64]:
    """Somebody as `d_skel` stands in a file, (20, 3, frames)."""
    return np.random.default_rng(seed).normal(size=(20, 3, frames))


def clip_bytes(x_vct: Any, key: str = "d_skel", compress: bool = True) -> bytes:
    """The contents of a file."""
    file = io.BytesIO()
    savemat(file, {key: x_vct}, do_compression=compress)
    return file.getvalue()


def write_clip(folder: Path, name: str = NAME, x_vct: Any = None) -> Path:
    """Write a clip to a file in `folder`."""
    path = folder / f"{name}.mat"
    path.write_bytes(clip_bytes(person() if x_vct is None else x_vct))
    return path


def write_example(folder: Path) -> None:
    """Write a small data set below `folder`: three clips, one of them not compressed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_clip(folder)
    write_clip(folder, "a27_s8_t1_skeleton", person(9, seed=1))
    (folder / "a1_s2_t4_skeleton.mat").write_bytes(clip_bytes(person(3, seed=2), compress=False))
