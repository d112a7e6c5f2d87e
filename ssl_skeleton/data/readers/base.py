"""What a reader is, and the recordings that it yields."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.errors import UserError


class DamagedClip(Exception):
    """A recording that cannot be read right: what is wrong and where, without the file's name."""


@dataclass(frozen=True)
class Track:
    """One body: its frames from `first_frame` of the clip on; a row of zeros where it is not seen."""

    first_frame: int
    x_tvc: NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """One clip as it was recorded. No track at all means that nobody was seen in it.

    `label` counts from 0, -1 when unknown; `subject`, `camera`, `setup` and `repetition` are the data
    set's own numbers, -1 when it has none. The stronger body's track comes first.
    """

    name: str
    frames: int
    tracks: Sequence[Track]
    label: int = -1
    subject: int = -1
    camera: int = -1
    setup: int = -1
    repetition: int = -1


class Reader(ABC):
    """Reads the files of one data set. Adding a data set is adding a reader.

    The attributes are facts of the data set: the name of its joint layout, its frame rate, its class
    names in label order.
    """

    dataset: str
    layout: str
    fps: float
    classes: Sequence[str]

    @abstractmethod
    def files(self, source: Path) -> Sequence[Path]:
        """The files to read below `source`, sorted; UserError when there is none."""

    @abstractmethod
    def read(self, path: Path) -> Sequence[Recording]:
        """The recordings in one file; DamagedClip when it cannot be read right."""


def find_files(source: Path, pattern: str, what: str) -> list[Path]:
    """The files below `source` that match `pattern`, sorted by name.

    Raises UserError when the folder is missing, is no folder, or holds no such file.
    """
    if not source.exists():
        raise UserError(f"{source}: no such folder; --source names the folder with {what}")
    if not source.is_dir():
        raise UserError(f"{source}: not a folder; --source names the folder with {what}")
    found = sorted(
        (path for path in source.rglob(pattern) if path.is_file()), key=lambda path: (path.name, path)
    )
    if not found:
        raise UserError(f"{source}: holds no {pattern}; --source names the folder with {what}")
    return found


def check_coordinates(x_tvc: NDArray[np.float32], joints: int) -> None:
    """Raise DamagedClip unless `x_tvc` is (T, joints, 3), finite, and within 1 km of the camera."""
    if x_tvc.ndim != 3 or x_tvc.shape[1:] != (joints, 3):
        raise DamagedClip(f"coordinates have shape {x_tvc.shape}, not (frames, {joints}, 3)")
    wrong = ~(np.abs(x_tvc) <= 1000.0)  # NaN fails the comparison too
    if wrong.any():
        frame, joint, axis = np.argwhere(wrong)[0]
        value = x_tvc[frame, joint, axis]
        raise DamagedClip(f"frame {frame}, joint {joint}: coordinate {'xyz'[axis]} is {value}")
