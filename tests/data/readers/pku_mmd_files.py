"""Writes skeleton, label and split files as PKU-MMD has them, for the tests of readers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CAMERAS = "LMR"


def person(frames: int, seed: int = 0, speed: float = 0.01) -> NDArray[np.float32]:
    """A body (T, 25, 3) that drifts along x."""
    rng = np.random.default_rng(seed)
    x_tvc = np.tile(rng.normal(size=(25, 3)), (frames, 1, 1)) + np.array([0, 0, 3])
    x_tvc[..., 0] += speed * np.arange(frames)[:, None]
    return x_tvc.round(6).astype(np.float32)


def skeleton_text(*bodies: NDArray[np.float32]) -> str:
    """The text of a skeleton file; a second body that is not given is zeros."""
    first = bodies[0]
    second = bodies[1] if len(bodies) > 1 else np.zeros_like(first)
    rows = np.concatenate([first.reshape(len(first), -1), second.reshape(len(first), -1)], axis=1)
    return "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in rows)


def label_text(*clips: Sequence[int]) -> str:
    """The text of a label file; a clip is its class, first and last frame."""
    return "".join(f"{action},{first},{last},2\n" for action, first, last in clips)


def split_text(train: Sequence[str], test: Sequence[str]) -> str:
    """The text of a split file, with the spelling of the real ones."""
    return f"Training videos:\n{', '.join(train)}, \n\nValidataion videos:\n{', '.join(test)}, \n"


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file below `folder`."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def write_example(folder: Path) -> None:
    """Two videos of three cameras with two clips each, and both splits."""
    for number in (2, 3):
        for seed, camera in enumerate(CAMERAS):
            bodies = person(9, seed), person(9, seed + 10 * number, speed=0.1)
            write(folder, f"Data/Skeletons/{number:04}-{camera}.txt", skeleton_text(*bodies))
            write(folder, f"Label/{number:04}-{camera}.txt", label_text((8, 0, 4), (51, 5, 9)))
    names = {number: [f"{number:04}-{camera}" for camera in CAMERAS] for number in (2, 3)}
    write(folder, "Split/cross-subject.txt", split_text(names[2], names[3]))
    both = [*names[2], *names[3]]
    right = [name for name in both if name[-1] != "L"]
    write(folder, "Split/cross-view.txt", split_text(right, [name for name in both if name[-1] == "L"]))
