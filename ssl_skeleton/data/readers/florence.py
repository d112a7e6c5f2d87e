"""Florence 3D Actions (Seidenari et al., CVPR Workshops 2013): one text file with all clips, 15 joints.

A line is a frame: video, actor, category, then x y z of 15 joints. The frames of a video stand together.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.rows import number_rows, seen_tracks, text_lines
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Outcome, Reader
from ssl_skeleton.data.recording import Facts, Recording
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.data.splits import ODD_SUBJECTS_TRAIN, SplitRule
from ssl_skeleton.errors import DamagedClip
from ssl_skeleton.skeleton.layout import load_layout

_CLASSES = (
    "wave",
    "drink from a bottle",
    "answer phone",
    "clap",
    "tight lace",
    "sit down",
    "stand up",
    "read watch",
    "bow",
)
_JOINTS = 15
_ACTORS = tuple(range(1, 11))
_MOST_BYTES = 1 << 24
_SPLITS = {
    # The protocol of the publication: each actor tests once, the others train.
    **{
        f"leave_out_{actor}": SplitRule(
            column="subject", train=tuple(other for other in _ACTORS if other != actor), test=(actor,)
        )
        for actor in _ACTORS
    },
    **ODD_SUBJECTS_TRAIN,
}


class Florence(Reader):
    """Reader of Florence 3D Actions: 215 clips, 9 classes, 10 actors. Millimetres in the file."""

    def __init__(self, source: Source, about: About | None = None) -> None:
        entries = source.find("Florence_dataset_WorldCoordinates.txt", "the text file of Florence 3D Actions")
        facts = Facts("florence3d", load_layout("florence_15"), 30.0, _CLASSES, splits=_SPLITS)
        super().__init__(source, facts, entries)

    def read(self, entry: Entry) -> Sequence[Outcome]:
        """The clips of the file, damaged ones as DamagedClip.

        Raises DamagedClip when a line does not begin with three whole numbers, for then nobody knows to which
        clip it belongs.
        """
        lines = text_lines(self.source.read(entry, _MOST_BYTES))
        keys = [(_keys(line, number), number) for number, line in enumerate(lines, 1) if line.strip()]
        clips = [(clip, [number for _, number in rows]) for clip, rows in groupby(keys, key=itemgetter(0))]
        pieces = Counter(clip[0] for clip, _ in clips)
        outcomes: list[Outcome] = []
        for clip, numbers in clips:
            first, last = numbers[0], numbers[-1]
            try:
                if pieces[clip[0]] > 1:
                    raise DamagedClip("its frames do not stand together, or are of two clips")
                outcomes.append(_recording(clip, lines[first - 1 : last], first))
            except DamagedClip as error:
                outcomes.append(DamagedClip(f"video {clip[0]}, lines {first} to {last}: {error}"))
        return outcomes


def _keys(line: bytes, number: int) -> tuple[int, int, int]:
    """Video, actor and category of a line."""
    values = line.split(maxsplit=3)[:3]
    if len(values) < 3 or not all(value.isdigit() and len(value) < 6 for value in values):
        raise DamagedClip(f"line {number}: does not begin with the numbers of a video, an actor, a category")
    video, actor, category = map(int, values)
    return video, actor, category


def _recording(keys: tuple[int, int, int], lines: Sequence[bytes], first_line: int) -> Recording:
    video, actor, category = keys
    if not 1 <= category <= len(_CLASSES):
        raise DamagedClip(f"category {category} is not one of 1 to {len(_CLASSES)}")
    rows = number_rows(lines, columns=3 + 3 * _JOINTS, first_line=first_line)
    x_tvc = _metres(rows[:, 3:]).reshape(-1, _JOINTS, 3).astype(np.float32)
    return Recording(
        name=f"v{video:03}_s{actor:02}_a{category:02}",
        frames=len(x_tvc),
        tracks=seen_tracks([x_tvc]),
        label=category - 1,
        subject=actor,
    )


def _metres(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Millimetres in metres; what is in metres already stays, for no sensor sees farther than 50 m."""
    return x / 1000 if np.abs(x).max() > 50 else x
