"""Writes MSR-Action3D's text files, for the tests of readers."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def person(frames: int = 4, seed: int = 0) -> NDArray[np.float32]:
    """Somebody in the file's order of joints, (T, 20, 3)."""
    x_tvc = np.random.default_rng(seed).normal(size=(frames, 20, 3)) + np.array([0, 0, 3])
    return x_tvc.round(6).astype(np.float32)


def clip_text(x_tvc: NDArray[np.float32]) -> str:
    """The text of a file, 20 lines a frame."""
    lines = [" ".join(f"{value:.9g}" for value in x_c) + " 1.000000\n" for x_c in x_tvc.reshape(-1, 3)]
    return "".join(lines)


def write_clip(folder: Path, name: str = "a05_s02_e03", x_tvc: NDArray[np.float32] | None = None) -> Path:
    """Write a clip to a file in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_skeleton3D.txt"
    path.write_text(clip_text(person() if x_tvc is None else x_tvc))
    return path


def write_example(folder: Path) -> None:
    """Two clips of each of the three action sets."""
    for seed, name in enumerate(("a01_s01_e01", "a02_s02_e02", "a03_s10_e03", "a04_s03_e01", "a15_s04_e02")):
        write_clip(folder / "MSRAction3DSkeletonReal3D", name, person(3 + seed, seed))
    write_clip(folder / "MSRAction3DSkeletonReal3D", "a20_s05_e01")
