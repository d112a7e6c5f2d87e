"""What every reader yields and every store holds: recordings, and the facts of their data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.splits import SplitRule
from ssl_skeleton.errors import DamagedClip
from ssl_skeleton.skeleton.layout import Layout

METRES = ("x", "y", "z")
IMAGE = ("x", "y", "confidence")

# Far beyond any recording of a body: limits on what a damaged file can ask for.
_MOST_METRES = 1000.0
_MOST_IMAGE = 1e5
MOST_FRAMES = 10_000_000


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


@dataclass(frozen=True)
class Facts:
    """What holds for all recordings of a data set.

    `coordinates` are `METRES` (x to the right hand of who faces the camera, y up, z away from the camera) or
    `IMAGE` (x to the right and y up in units that `note` names, and the estimator's confidence from 0 to 1).
    """

    dataset: str
    layout: Layout
    fps: float
    classes: Sequence[str] = ()
    coordinates: tuple[str, ...] = METRES
    splits: Mapping[str, SplitRule] = field(default_factory=dict)
    note: str = ""


def check_recording(clip: Recording, facts: Facts) -> None:
    """Raise DamagedClip unless a recording fits the facts of its data set and its own length."""
    if not clip.name or not clip.name.isprintable():
        raise DamagedClip(f"{clip.name!r} is no name for a clip")
    if not -1 <= clip.label < len(facts.classes):
        raise DamagedClip(f"label {clip.label} is not one of {len(facts.classes)} classes")
    if clip.frames > MOST_FRAMES:
        raise DamagedClip(f"{clip.frames} frames are more than the {MOST_FRAMES} that a clip may have")
    for track in clip.tracks:
        check_coordinates(track.x_tvc, len(facts.layout.joints), facts.coordinates)
        if not 0 <= track.first_frame < track.first_frame + len(track.x_tvc) <= clip.frames:
            raise DamagedClip(f"a body's {len(track.x_tvc)} frames do not fit the clip's {clip.frames}")


def check_coordinates(x_tvc: NDArray[np.float32], joints: int, coordinates: Sequence[str] = METRES) -> None:
    """Raise DamagedClip unless `x_tvc` is (T, joints, C), finite, and within 1 km (or 100,000 pixels)."""
    shape = (joints, len(coordinates))
    if x_tvc.ndim != 3 or x_tvc.shape[1:] != shape:
        raise DamagedClip(f"coordinates have shape {x_tvc.shape}, not (frames, {shape[0]}, {shape[1]})")
    most = _MOST_METRES if tuple(coordinates) == METRES else _MOST_IMAGE
    # NaN fails these comparisons too.
    if x_tvc.size and not (x_tvc.max() <= most and x_tvc.min() >= -most):
        frame, joint, axis = np.argwhere(~(np.abs(x_tvc) <= most))[0]
        value = x_tvc[frame, joint, axis]
        raise DamagedClip(f"frame {frame}, joint {joint}: coordinate {coordinates[axis]} is {value}")
