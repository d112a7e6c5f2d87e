"""UTKinect-Action3D (Xia, Chen, Aggarwal, CVPR Workshops 2012): ten actions in one text file, Kinect v1.

`joints_sXX_eXX.txt` (subject, episode) has a line a frame: its number, then x y z of 20 joints in metres.
`actionLabel.txt` has a line `sXX_eXX` and below it ten lines `action: first last`, in frame numbers, both
included; `NaN NaN` where the action is missing.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.rows import frame_order, number_rows, seen_tracks, text_lines, without_mark
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Outcome, Reader
from ssl_skeleton.data.recording import Facts, Recording
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.data.splits import ODD_SUBJECTS_TRAIN
from ssl_skeleton.errors import DamagedClip, UserError, nearest
from ssl_skeleton.skeleton.layout import load_layout

_NAME = re.compile(r"joints_(s\d{2}_e\d{2})", re.ASCII | re.IGNORECASE)
_HEADING = re.compile(r"s\d{2}_e\d{2}", re.ASCII | re.IGNORECASE)
_INTERVAL = re.compile(r"(\w+)\s*:\s*(\d{1,6}|NaN)\s+(\d{1,6}|NaN)", re.ASCII | re.IGNORECASE)
_CLASSES = {
    "walk": "walk",
    "sitdown": "sit down",
    "standup": "stand up",
    "pickup": "pick up",
    "carry": "carry",
    "throw": "throw",
    "push": "push",
    "pull": "pull",
    "wavehands": "wave hands",
    "claphands": "clap hands",
}
_JOINTS = 20
_MOST_BYTES = 1 << 24
_MOST_LABEL_BYTES = 1 << 20
_NOTE = "frames follow one another as recorded; where the sensor lost the body, frames are missing"

Interval = tuple[int, int] | None  # first and last frame number; None when the action is missing


class UtKinect(Reader):
    """Reader of UTKinect-Action3D: 199 clips, 10 classes, 10 subjects, twice each.

    A frame number that stands twice counts once; frames that are missing are not made up.
    """

    def __init__(self, source: Source, about: About | None = None) -> None:
        entries = source.find("joints_s*_e*.txt", "the joints_sXX_eXX.txt files of UTKinect-Action3D")
        labels = source.find("actionLabel.txt", "the actionLabel.txt of UTKinect-Action3D")
        if len(labels) > 1:
            raise UserError(f"{source}: actionLabel.txt stands there twice; name a source that holds one")
        try:
            self._intervals = _read_labels(source.read(labels[0], _MOST_LABEL_BYTES))
        except DamagedClip as error:
            raise UserError(f"{source}: {labels[0].path}: {error}") from None
        layout, classes = load_layout("kinect_v1_20"), tuple(_CLASSES.values())
        facts = Facts("utkinect", layout, 15.0, classes, splits=ODD_SUBJECTS_TRAIN, note=_NOTE)
        super().__init__(source, facts, entries)

    def read(self, entry: Entry) -> Sequence[Outcome]:
        """The ten clips of a file; a missing action is a recording of no frames."""
        name = _NAME.fullmatch(entry.stem)
        if name is None:
            raise DamagedClip("the file name does not read joints_sXX_eXX")
        key = name.group(1).lower()
        if key not in self._intervals:
            raise DamagedClip(f"actionLabel.txt says nothing of {key}")
        rows = number_rows(text_lines(self.source.read(entry, _MOST_BYTES)), columns=1 + 3 * _JOINTS)
        rows = rows[frame_order(rows[:, 0])]
        outcomes: list[Outcome] = []
        for label, (action, interval) in enumerate(self._intervals[key].items()):
            try:
                outcomes.append(_recording(key, label, _frames(rows, interval)))
            except DamagedClip as error:
                outcomes.append(DamagedClip(f"{key}, {action}: {error}"))
        return outcomes


def _frames(rows: NDArray[np.float64], interval: Interval) -> NDArray[np.float32]:
    """The frames of an interval, (T, 20, 3)."""
    if interval is None:
        return np.zeros((0, _JOINTS, 3), np.float32)
    first, last = interval
    inside = (rows[:, 0] >= first) & (rows[:, 0] <= last)
    if not inside.any():
        raise DamagedClip(f"there is no frame from {first} to {last}")
    return rows[inside, 1:].astype(np.float32).reshape(-1, _JOINTS, 3)


def _recording(key: str, label: int, x_tvc: NDArray[np.float32]) -> Recording:
    return Recording(
        name=f"a{label + 1:02}_{key}",
        frames=len(x_tvc),
        tracks=seen_tracks([x_tvc]),
        label=label,
        subject=int(key[1:3]),
        repetition=int(key[5:7]),
    )


def _read_labels(data: bytes) -> dict[str, dict[str, Interval]]:
    """For each sXX_eXX the interval of every action, in label order; DamagedClip when one is wrong."""
    found: dict[str, dict[str, Interval]] = {}
    heading = ""
    for number, line in enumerate(without_mark(data).decode("ascii", "replace").splitlines(), 1):
        text = line.strip()
        if _HEADING.fullmatch(text):
            heading = text.lower()
            if heading in found:
                raise DamagedClip(f"line {number}: {heading} stands there twice")
            found[heading] = {}
        elif text:
            action, interval = _interval(text, number)
            if not heading:
                raise DamagedClip(f"line {number}: an interval stands before any sXX_eXX")
            if action in found[heading]:
                raise DamagedClip(f"line {number}: {heading} has '{action}' twice")
            found[heading][action] = interval
    for heading, intervals in found.items():
        missing = [action for action in _CLASSES if action not in intervals]
        if missing:
            raise DamagedClip(f"{heading} has no '{missing[0]}'")
    return {heading: {action: one[action] for action in _CLASSES} for heading, one in found.items()}


def _interval(text: str, number: int) -> tuple[str, Interval]:
    match = _INTERVAL.fullmatch(text)
    if match is None:
        raise DamagedClip(f"line {number}: {text[:40]!r} reads neither sXX_eXX nor 'action: first last'")
    action, *ends = (group.lower() for group in match.groups())
    if action not in _CLASSES:
        raise DamagedClip(f"line {number}: unknown action '{action}'; {nearest(action, _CLASSES)}")
    if "nan" in ends:
        return action, None
    return action, (int(ends[0]), int(ends[1]))
