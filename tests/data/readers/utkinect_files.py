"""Writes UTKinect's joint files and actionLabel.txt, for the tests of readers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ACTIONS = (
    *("walk", "sitDown", "standUp", "pickUp", "carry", "throw", "push", "pull", "waveHands", "clapHands"),
)


def person(frames: int, seed: int = 0) -> NDArray[np.float32]:
    """Somebody, (T, 20, 3)."""
    x_tvc = np.random.default_rng(seed).normal(size=(frames, 20, 3)) + np.array([0, 0, 3])
    return x_tvc.round(5).astype(np.float32)


def joints_text(numbers: Sequence[int], x_tvc: NDArray[np.float32]) -> str:
    """The text of a joint file; two spaces part the frame number from the rest."""
    rows = x_tvc.reshape(len(x_tvc), 60)
    return "".join(
        f"{t}  {' '.join(f'{value:.9g}' for value in row)} \n" for t, row in zip(numbers, rows, strict=True)
    )


def label_text(intervals: Mapping[str, Sequence[object]]) -> str:
    """The text of actionLabel.txt; intervals are texts or pairs of frame numbers, in the order of ACTIONS."""
    lines = []
    for heading, ten in intervals.items():
        lines.append(heading)
        for action, interval in zip(ACTIONS, ten, strict=True):
            ends = interval if isinstance(interval, str) else "{} {}".format(*interval)
            lines.append(f"{action}: {ends}")
    return "\n".join(lines) + "\n"


def tenths(first: int, length: int) -> list[tuple[int, int]]:
    """Ten intervals one after another."""
    return [(first + i * length, first + (i + 1) * length - 1) for i in range(10)]


def write_example(folder: Path) -> None:
    """Two files of ten actions, one of which is missing."""
    joints = folder / "joints"
    joints.mkdir(parents=True, exist_ok=True)
    (joints / "joints_s01_e01.txt").write_text(joints_text(range(100, 140), person(40)))
    (joints / "joints_s10_e02.txt").write_text(joints_text(range(200, 260, 2), person(30, 1)))
    missing = tenths(200, 6)
    missing[4] = "NaN NaN"
    (folder / "actionLabel.txt").write_text(label_text({"s01_e01": tenths(100, 4), "s10_e02": missing}))
