"""Writes SBU's skeleton_pos.txt files, for the tests of readers."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def pair(frames: int = 4, seed: int = 0) -> NDArray[np.float64]:
    """Two bodies as they stand in a file, x and y in 0..1 and z scaled, (T, 2, 15, 3)."""
    x_tmvc = np.random.default_rng(seed).uniform(size=(frames, 2, 15, 3)) + np.array([0, 0, 1.5])
    return x_tmvc.round(6)


def clip_text(x_tmvc: NDArray[np.float64]) -> str:
    """The text of a file; frames count from 1."""
    rows = x_tmvc.reshape(len(x_tmvc), 90)
    return "".join(f"{t},{','.join(f'{v:.6f}' for v in row)}\n" for t, row in enumerate(rows, 1))


def write_clip(folder: Path, place: str = "s03s04/02/001", x_tmvc: NDArray[np.float64] | None = None) -> Path:
    """Write a clip to its file below `folder`."""
    path = folder / place / "skeleton_pos.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(clip_text(pair() if x_tmvc is None else x_tmvc))
    return path


def write_example(folder: Path) -> None:
    """Three clips of two pairs."""
    for seed, place in enumerate(("s03s04/02/001", "s03s04/08/002", "s07s01/01/001")):
        write_clip(folder, place, pair(3 + seed, seed))
