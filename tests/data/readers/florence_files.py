"""Writes Florence_dataset_WorldCoordinates.txt, for the tests of readers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Clip = tuple[int, int, int, NDArray[np.float64]]  # video, actor, category, coordinates


def person(frames: int, seed: int = 0) -> NDArray[np.float64]:
    """Somebody in millimetres, (T, 15, 3)."""
    x_tvc = 400 * np.random.default_rng(seed).normal(size=(frames, 15, 3)) + [0, 0, 2000]
    return x_tvc.round(3)


def clips_text(clips: Sequence[Clip]) -> str:
    """The text of the file."""
    lines = []
    for video, actor, category, x_tvc in clips:
        for row in x_tvc.reshape(len(x_tvc), 45):
            lines.append(f"{video} {actor} {category} {' '.join(f'{value:.3f}' for value in row)}\n")
    return "".join(lines)


def write_clips(folder: Path, clips: Sequence[Clip]) -> Path:
    """Write the file below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "Florence_dataset_WorldCoordinates.txt"
    path.write_text(clips_text(clips))
    return path


def write_example(folder: Path) -> None:
    """Three clips of two actors."""
    write_clips(folder, [(1, 1, 1, person(4)), (2, 1, 1, person(6, 1)), (3, 2, 9, person(5, 2))])
