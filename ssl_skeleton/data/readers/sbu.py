"""SBU Kinect Interaction (Yun et al., CVPR Workshops 2012): two persons, 15 joints each.

The clips lie at sXXsYY/CC/NNN/skeleton_pos.txt: pair (who acts, and on whom), class, repetition. A line is a
frame: its number, then the joints of two persons (believed: the left one first). x, y and z are scaled; the
formulas that undo this come with the data and are those of `_to_metres`. All three axes seem to share one
unit, for 10000 / 7.8125 = 1280 = 2560 / 2, so x and y may be millimetres of the world or places in the image.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.rows import frame_order, number_rows, seen_tracks, text_lines
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Reader
from ssl_skeleton.data.recording import Facts, Recording
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.data.splits import SplitRule
from ssl_skeleton.errors import DamagedClip
from ssl_skeleton.skeleton.layout import load_layout

_PATH = re.compile(r"(?:.*/)?s(\d{2})s(\d{2})/(\d{2})/(\d{3})/[^/]*", re.ASCII | re.IGNORECASE)
_CLASSES = (
    "approaching",
    "departing",
    "kicking",
    "punching",
    "pushing",
    "hugging",
    "shaking hands",
    "exchanging",
)
_JOINTS = 15
_MOST_BYTES = 1 << 22
# The pairs that test in each fold; the others train.
_FOLDS = (
    (102, 304, 502, 604),
    (203, 207, 305, 503),
    (103, 107, 701, 703),
    (201, 206, 302, 306),
    (402, 403, 406, 602, 603),
)
_SPLITS = {
    f"fold{number}": SplitRule(
        column="setup",
        train=tuple(pair for other in _FOLDS if other is not fold for pair in other),
        test=fold,
    )
    for number, fold in enumerate(_FOLDS, 1)
}
_NOTE = (
    "a unit of the published formulas is taken for a millimetre; whether x and y are metres of the world "
    "or places in the image is undecided"
)


class Sbu(Reader):
    """Reader of SBU Kinect Interaction: 282 clips, 8 classes, 21 pairs of 7 subjects.

    `setup` is the pair, 304 for s03s04, and `subject` the one who acts. Tracks keep the order of the file. A
    joint at exactly 0, 0, 0 in the file is not seen, and is stored so.
    """

    def __init__(self, source: Source, about: About | None = None) -> None:
        entries = source.find("skeleton_pos.txt", "the sXXsYY/CC/NNN/skeleton_pos.txt clips of SBU")
        facts = Facts("sbu", load_layout("openni_15"), 15.0, _CLASSES, splits=_SPLITS, note=_NOTE)
        super().__init__(source, facts, entries)

    def read(self, entry: Entry) -> Sequence[Recording]:
        """The one clip of a file; DamagedClip when it cannot be read right."""
        # A source may be the folder or the archive of one pair alone.
        place = _PATH.fullmatch(f"{self.source.roots[entry.root].absolute().stem}/{entry.path}")
        if place is None:
            raise DamagedClip("the path does not read sXXsYY/CC/NNN/skeleton_pos.txt")
        active, other, action, repetition = map(int, place.groups())
        if not 1 <= action <= len(_CLASSES):
            raise DamagedClip(f"class {action} is not one of 1 to {len(_CLASSES)}")
        rows = number_rows(text_lines(self.source.read(entry, _MOST_BYTES)), columns=1 + 2 * 3 * _JOINTS)
        x_tmvc = _to_metres(rows[frame_order(rows[:, 0]), 1:].reshape(-1, 2, _JOINTS, 3))
        recording = Recording(
            name=f"s{active:02}s{other:02}_{action:02}_{repetition:03}",
            frames=len(x_tmvc),
            tracks=seen_tracks(x_tmvc.swapaxes(0, 1)),
            label=action - 1,
            subject=active,
            setup=100 * active + other,
            repetition=repetition,
        )
        return [recording]


def _to_metres(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Undo the scaling of coordinates (..., 3); one unit of the formulas is taken for a millimetre."""
    seen = x.any(axis=-1, keepdims=True)
    scaled = np.array([1280.0, 960.0, 0.0]) + x * np.array([-2560.0, -1920.0, 10000.0 / 7.8125])
    return np.where(seen, scaled / 1000, 0.0).astype(np.float32)
