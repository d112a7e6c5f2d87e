"""PKU-MMD, phases I and II (Liu et al., arXiv 1703.07475): long videos, two bodies of 25 joints, Kinect v2.

A skeleton file (`0002-L.txt`; the letter is the camera) has a line a frame: 150 values, x y z of 25 joints
for two bodies in metres, zeros for a body that is not there. A label file of the same name, in another
folder, has a line a clip: `class,first,last,confidence`. The splits come with the data as text files.
"""

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ssl_skeleton.data.bodies import motion
from ssl_skeleton.data.parsing.rows import number_rows, seen_tracks, text_lines, without_mark
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Outcome, Reader
from ssl_skeleton.data.recording import Facts, Recording, Track
from ssl_skeleton.data.source import Entry, Source, text_of
from ssl_skeleton.data.splits import SplitRule
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import load_layout

# 0002-L; phase II also has names such as A01N01-L.
_NAME = re.compile(r"(\d{4}|A\d{2}N\d{2})-([LMR])", re.ASCII | re.IGNORECASE)
_HEADING = re.compile("train|valid|test", re.IGNORECASE)
_CAMERAS = {"L": 1, "M": 2, "R": 3}
_SPLIT_FILES: dict[str, tuple[str, Literal["setup", "camera"]]] = {
    "xsub": ("cross?subject*.txt", "setup"),
    "xview": ("cross?view*.txt", "camera"),
}
_JOINTS = 25
_BODIES = 2

# Far beyond any video of the data sets: limits on what a damaged file can ask for.
_MOST_BYTES = 1 << 26
_MOST_FRAMES = 100_000
_MOST_SPLIT_BYTES = 1 << 18
_MOST_LABEL_BYTES = 1 << 14
_MOST_OVERLAP = 2  # all clips of a video together have at most so many times its frames


class PkuMmd(Reader):
    """Reader of PKU-MMD: its videos cut into the clips of their label files.

    A clip is named after its video and its line in the label file, `0002-L_003`. `setup` is the number of the
    video (1001 for A10N01), `camera` 1, 2, 3 for L, M, R; the files do not say who performs. The frames of a
    clip are those from `first` up to but not `last`, counted from 0. The body that moves more comes first.
    """

    def __init__(
        self, dataset: str, classes: Sequence[str], source: Source, about: About | None = None
    ) -> None:
        found = source.find("*.txt", "the skeleton and label files of PKU-MMD")
        videos = [entry for entry in found if _NAME.fullmatch(entry.stem)]
        folders = _label_folders(source, videos)
        entries = [entry for entry in videos if (entry.root, entry.folder) not in folders]
        labels = [entry for entry in videos if (entry.root, entry.folder) in folders]
        for files, kind in ((entries, "Skeleton"), (labels, "Label")):
            if not files:
                raise UserError(
                    f"{source}: holds no {kind.lower()} files of PKU-MMD, such as {kind}/0002-L.txt"
                )
        self._labels = {entry.stem: entry for entry in labels}
        if len(self._labels) < len(labels):
            raise UserError(
                f"{source}: holds two label files of one name; name the folders of one phase only"
            )
        splits, note = _splits(source)
        layout = load_layout("kinect_v2_25")
        super().__init__(source, Facts(dataset, layout, 30.0, classes, splits=splits, note=note), entries)

    def read(self, entry: Entry) -> Sequence[Outcome]:
        """The clips of a video, damaged ones as DamagedClip; DamagedClip when nothing can be read right."""
        if entry.stem not in self._labels:
            raise DamagedClip("there is no label file of this name")
        label_lines = text_lines(self.source.read(self._labels[entry.stem], _MOST_LABEL_BYTES))
        data = self.source.read(entry, _MOST_BYTES).rstrip()
        if max(data.count(b"\n"), data.count(b"\r")) >= _MOST_FRAMES:
            raise DamagedClip(f"more than the {_MOST_FRAMES} lines that a video may have")
        frames = text_lines(data)
        left = _MOST_OVERLAP * len(frames)
        outcomes: list[Outcome] = []
        for number, line in enumerate(label_lines, 1):
            if not line.strip():
                continue
            try:
                action, first, last = self._label(line, number, len(frames))
                left -= last - first
                if left < 0:
                    raise DamagedClip(f"label file, line {number}: the clips overlap too much")
                outcomes.append(_clip(entry.stem, number, action, first, frames[first:last]))
            except DamagedClip as error:
                outcomes.append(DamagedClip(f"{entry.stem}_{number:03}: {error}"))
        return outcomes

    def _label(self, line: bytes, number: int, frames: int) -> tuple[int, int, int]:
        """A clip's action, its first frame, and the one after its last."""
        values = line.replace(b",", b" ").split()
        if len(values) != 4 or not all(value.isdigit() and len(value) < 9 for value in values[:3]):
            raise DamagedClip(f"label file, line {number}: does not read class,first,last,confidence")
        action, first, last = map(int, values[:3])
        if not 1 <= action <= len(self.facts.classes):
            raise DamagedClip(
                f"label file, line {number}: class {action} is not one of 1 to {len(self.facts.classes)}"
            )
        if not first < last <= frames:
            raise DamagedClip(f"label file, line {number}: {first} to {last} are no frames of 0 to {frames}")
        return action, first, last


def _clip(video: str, number: int, action: int, first: int, lines: Sequence[bytes]) -> Recording:
    rows = number_rows(lines, _BODIES * _JOINTS * 3, first_line=first + 1)
    if len(rows) != len(lines):
        raise DamagedClip(f"a line from {first + 1} to {first + len(lines)} is empty")
    x_mtvc = rows.astype(np.float32).reshape(-1, _BODIES, _JOINTS, 3).swapaxes(0, 1)
    setup, camera = _numbers(video)
    return Recording(
        name=f"{video}_{number:03}",
        frames=len(lines),
        tracks=sorted(seen_tracks(x_mtvc), key=_motion, reverse=True),
        label=action - 1,
        camera=camera,
        setup=setup,
    )


def _motion(track: Track) -> float:
    """How much a body moves in the frames in which it is seen."""
    return motion(track.x_tvc[track.x_tvc.any(axis=(1, 2))])


def _numbers(video: str) -> tuple[int, int]:
    """The number of a video, 1001 for A10N01, and of its camera."""
    return int("".join(filter(str.isdecimal, video))), _CAMERAS[video[-1].upper()]


def _label_folders(source: Source, videos: Sequence[Entry]) -> set[tuple[int, str]]:
    """Which folders (root and path) hold label files: skeleton files have the same names."""
    first_files = {(entry.root, entry.folder): entry for entry in reversed(videos)}
    return {place for place, entry in first_files.items() if _is_label(source, entry)}


def _is_label(source: Source, entry: Entry) -> bool:
    """Whether a file is one of labels: its nearest folder of a telling name says so, or its commas do."""
    for part in reversed([source.roots[entry.root].absolute().name, *entry.folder.split("/")]):
        is_label, is_skeleton = "label" in part.lower(), "skeleton" in part.lower()
        if is_label != is_skeleton:
            return is_label
    try:
        return b"," in source.read(entry, _MOST_LABEL_BYTES)
    except DamagedClip:  # a skeleton file is far longer
        return False


def _splits(source: Source) -> tuple[dict[str, SplitRule], str]:
    """The splits whose text files are there, and a note on the others."""
    splits: dict[str, SplitRule] = {}
    notes = []
    for name, (pattern, column) in _SPLIT_FILES.items():
        files = source.matching(pattern)
        if len(files) > 1:
            raise UserError(
                f"{source}: holds {files[0].path} and {files[1].path}; name those of one phase only"
            )
        if not files:
            notes.append(f"the source held no {pattern.replace('?', '-')}, so there is no split {name}")
            continue
        try:
            splits[name] = _rule(text_of(without_mark(source.read(files[0], _MOST_SPLIT_BYTES))), column)
        except DamagedClip as error:
            raise UserError(f"{source}: {files[0].path}: {error}") from None
    return splits, "; ".join(notes)


def _rule(text: str, column: Literal["setup", "camera"]) -> SplitRule:
    """The rule of a split file: names of videos below a heading of training, and below one of validation.

    Of two lines without headings, the first trains.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) == 2 and not _HEADING.search(text):
        lines = [
            (number, f"{part}: {line}") for part, (number, line) in zip(("train", "test"), lines, strict=True)
        ]
    parts: dict[str, set[int]] = {"train": set(), "test": set()}
    part = ""
    for number, line in lines:
        head, _, names = line.rpartition(":")
        if not any(map(str.isdecimal, line)):
            head, names = line, ""
        heading = _HEADING.search(head)
        if heading:
            part = "train" if heading.group().lower() == "train" else "test"
        for video in names.replace(",", " ").split():
            if not part or not _NAME.fullmatch(video):
                fault = "no video's name" if part else "below no heading of training or validation"
                raise DamagedClip(f"line {number}: {video[:40]!r} is {fault}")
            parts[part].add(_numbers(video)[column == "camera"])
    both = sorted(parts["train"] & parts["test"])
    if both:
        raise DamagedClip(f"{column} {both[0]} is among the training and among the validation videos")
    if not (parts["train"] and parts["test"]):
        raise DamagedClip("does not name both training and validation videos")
    return SplitRule(column=column, train=tuple(sorted(parts["train"])), test=tuple(sorted(parts["test"])))
