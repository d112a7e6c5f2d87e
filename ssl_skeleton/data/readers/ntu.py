"""NTU RGB+D 60 and 120 (Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2020): `.skeleton` text, Kinect v2.

File names read SsssCcccPpppRrrrAaaa: setup, camera, performer, repetition, action. Lines: the number of
frames; in each frame the number of bodies; for each body its id and nine states, the number of joints,
and a line a joint: x y z in metres, eight more numbers that are not used, the tracking state.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.readers.base import (
    DamagedClip,
    Reader,
    Recording,
    Track,
    check_coordinates,
    find_files,
)

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)
_JOINTS = 25
_BODY_VALUES = 10
_JOINT_VALUES = 12
# Colour, depth and orientation of real files hold NaN, so only these values are read as numbers. The last
# one is among them since asking for it makes sure that a line is complete.
_READ_VALUES = (0, 1, 2, _JOINT_VALUES - 1)
_BODY_SPACES = _BODY_VALUES - 1 + _JOINTS * (_JOINT_VALUES - 1)

# Far beyond any clip of the data sets: limits on what a damaged file can ask for.
_MAX_BYTES = 1 << 27
_MAX_FRAMES = 20_000
_MAX_BODIES = 6  # the sensor tracks no more at a time

_MAX_TRACKS = 2
# What tells a phantom (a chair, a reflection) from a person, as is usual for these data sets.
_SHORT_FRAMES = 10
_WIDE_RATIO = 0.8  # a frame is implausible where the body is wider than this share of its height
_WIDE_SHARE = 0.7  # a body is a phantom when more than this share of its frames is implausible


class Ntu(Reader):
    """Reader of `.skeleton` files, one clip each, 25 joints, for any data set recorded that way.

    A body is a track from the first to the last frame in which its id is seen; a body with all joints at
    exactly zero is not seen. When there is more than one body, phantoms are left out (see `_persons`), and
    of the others the two that move most are kept, the one that moves more first. Frames before the first
    and after the last one in which a kept body is seen are cut off; `Recording.frames` counts the rest.
    """

    layout = "kinect_v2_25"
    fps = 30.0

    def __init__(self, dataset: str, classes: Sequence[str]) -> None:
        self.dataset = dataset
        self.classes = tuple(classes)

    def files(self, source: Path) -> Sequence[Path]:
        """The `.skeleton` files below `source`."""
        return find_files(source, "*.skeleton", "the SsssCcccPpppRrrrAaaa.skeleton files")

    def read(self, path: Path) -> Sequence[Recording]:
        """The one clip of a file; DamagedClip when it cannot be read right."""
        name = _NAME.fullmatch(path.stem)
        if name is None:
            raise DamagedClip("the file name does not read SsssCcccPpppRrrrAaaa")
        setup, camera, performer, repetition, action = map(int, name.groups())
        if not 1 <= action <= len(self.classes):
            raise DamagedClip(
                f"action {action} is not one of the {len(self.classes)} of {self.dataset}"
                + ("; it belongs to ntu120" if self.dataset == "ntu60" and 60 < action <= 120 else "")
            )
        frames, tracks = _tracks(_persons(_bodies(_read_text(path))))
        recording = Recording(
            name=path.stem,
            frames=frames,
            tracks=tracks,
            label=action - 1,
            subject=performer,
            camera=camera,
            setup=setup,
            repetition=repetition,
        )
        return [recording]


@dataclass(frozen=True)
class _Body:
    """What is seen of one body: the frames, ascending, and its joints in each."""

    frames: NDArray[np.int64]
    x_tvc: NDArray[np.float32]

    def motion(self) -> float:
        """How much it moves: the spread of x, y and z over frames and joints, the field's usual measure."""
        return float(self.x_tvc.std(axis=(0, 1), dtype=np.float64).sum())

    def is_wide(self) -> bool:
        """Whether it is too wide for a person in most of its frames."""
        width, height, _ = np.ptp(self.x_tvc, axis=1).T
        return float(np.mean(width > _WIDE_RATIO * height)) > _WIDE_SHARE


@dataclass
class _Seen:
    """Every sight of a body in file order: its frame, its id's number, the first of its joint lines."""

    frames: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    joint_lines: list[str] = field(default_factory=list)

    def line_number(self, joint_line: int) -> int:
        """Where in the file a joint line stands, counted from 1."""
        return self.starts[joint_line // _JOINTS] + joint_line % _JOINTS + 1


class _Cursor:
    """Walks the lines of a file and knows where it stands."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = lines
        self.at = 0  # lines taken so far, and so the number of the last one

    def take(self, what: str) -> str:
        """The next line."""
        if self.at >= len(self.lines):
            raise DamagedClip(f"line {self.at + 1}: the file ends where {what} should stand")
        self.at += 1
        return self.lines[self.at - 1]

    def count(self, what: str, largest: int) -> int:
        """The next line as a whole number from 0 to `largest`."""
        text = self.take(what).strip()
        if not text.isdigit() or len(text) > 9 or int(text) > largest:
            raise DamagedClip(f"line {self.at}: {what} is {text[:40]!r}, not 0 to {largest}")
        return int(text)

    def body_id(self) -> str:
        """The id on the next line; it stays text, for float64 cannot tell two neighbouring ids apart."""
        values = self.take("a body's id").split()
        if len(values) != _BODY_VALUES or not values[0].isdigit():
            raise DamagedClip(f"line {self.at}: not a body's id and {_BODY_VALUES - 1} states")
        return values[0]

    def joints(self) -> Sequence[str]:
        """The next 25 lines."""
        end = self.at + _JOINTS
        if end > len(self.lines):
            raise DamagedClip(f"line {len(self.lines) + 1}: the file ends where a joint should stand")
        lines = self.lines[self.at : end]
        self.at = end
        return lines


def _read_text(path: Path) -> str:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise DamagedClip(f"{size} bytes are more than the {_MAX_BYTES} that a clip may have")
    data = path.read_bytes()
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        line = len((data[: error.start] + b"?").splitlines())
        raise DamagedClip(f"line {line}: byte {data[error.start]:#04x} is no ASCII text") from None


def _bodies(text: str) -> list[_Body]:
    """All bodies of a file, in the order in which they are first seen."""
    seen = _walk(text.splitlines())
    if not seen.frames:
        return []
    if not _is_regular(text, seen):
        _check_values(seen)
    x_rvc = _coordinates(seen)
    owners = np.array(seen.owners)
    order = np.argsort(owners, kind="stable")  # keeps the frames of a body ascending
    visible = np.asarray(x_rvc.reshape(len(x_rvc), -1).any(axis=1))
    order = order[visible[order]]
    cuts = np.flatnonzero(np.diff(owners[order])) + 1
    frames, x_rvc = np.array(seen.frames)[order], x_rvc[order]
    parts = zip(np.split(frames, cuts), np.split(x_rvc, cuts), strict=True)
    return [_Body(frames, x_tvc) for frames, x_tvc in parts if len(frames)]


def _walk(lines: Sequence[str]) -> _Seen:
    """Walk through the structure of a file; the numbers of its joints are left to be read at once."""
    cursor, seen = _Cursor(lines), _Seen()
    numbers: dict[str, int] = {}
    for frame in range(cursor.count("the number of frames", _MAX_FRAMES)):
        here = set()
        for _ in range(cursor.count("the number of bodies", _MAX_BODIES)):
            body = cursor.body_id()
            if body in here:
                raise DamagedClip(f"line {cursor.at}: body {body[:40]} stands twice in frame {frame}")
            here.add(body)
            if cursor.count("the number of joints", _JOINTS) != _JOINTS:
                raise DamagedClip(f"line {cursor.at}: the number of joints is not {_JOINTS}")
            seen.frames.append(frame)
            seen.owners.append(numbers.setdefault(body, len(numbers)))
            seen.starts.append(cursor.at)
            seen.joint_lines.extend(cursor.joints())
    for number, line in enumerate(lines[cursor.at :], cursor.at + 1):
        if line.strip():
            raise DamagedClip(f"line {number}: more text follows the last frame")
    return seen


def _coordinates(seen: _Seen) -> NDArray[np.float32]:
    """The coordinates on all joint lines, (sights of a body, 25, 3)."""
    lines = seen.joint_lines
    values = _numbers(lines)
    if values is None or len(values) != len(lines):  # a blank line is passed over
        _check_values(seen)
        line = _first_without_numbers(lines)
        text = lines[line].strip()[:60]
        raise DamagedClip(f"line {seen.line_number(line)}: {text!r} are not {_JOINT_VALUES} numbers")
    x_rvc = values[:, :3].reshape(-1, _JOINTS, 3)
    try:
        check_coordinates(x_rvc, joints=_JOINTS)
    except DamagedClip:
        worst = int(np.argmax(np.abs(values[:, :3])))  # the first NaN, or else the largest
        where = f"line {seen.line_number(worst // 3)}: coordinate {'xyz'[worst % 3]}"
        raise DamagedClip(f"{where} is {x_rvc.flat[worst]}") from None
    return x_rvc


def _is_regular(text: str, seen: _Seen) -> bool:
    """Whether no joint line can have more than 12 values, told quickly from the spaces of the whole file.

    Reading the numbers makes sure of 12 values, and so of 11 spaces, on every line; when there are no more
    than these spaces, there are no more values either.
    """
    # Other white space parts values as well; and numpy warns when all lines are blank.
    odd = "\t" in text or "\x1f" in text or not seen.joint_lines[0].strip()
    spaces = np.count_nonzero(np.frombuffer(text.encode("ascii"), np.uint8) == ord(" "))
    return not odd and int(spaces) == _BODY_SPACES * len(seen.starts)


def _check_values(seen: _Seen) -> None:
    """Count the values of every joint line: exact and slow."""
    for index, line in enumerate(seen.joint_lines):
        count = len(line.split())
        if count != _JOINT_VALUES:
            raise DamagedClip(f"line {seen.line_number(index)}: {count} values, not {_JOINT_VALUES}")


def _numbers(lines: Sequence[str]) -> NDArray[np.float32] | None:
    try:
        return np.loadtxt(lines, np.float32, comments=None, usecols=_READ_VALUES, ndmin=2)
    except ValueError:
        return None


def _first_without_numbers(lines: Sequence[str]) -> int:
    """The first line that is not numbers, when at least one is not: found by halving."""
    low, high = 0, len(lines)
    while high - low > 1:
        middle = (low + high) // 2
        if _numbers(lines[low:middle]) is None:
            high = middle
        else:
            low = middle
    return low


def _persons(bodies: Sequence[_Body]) -> list[_Body]:
    """The bodies that are not phantoms, the one that moves most first, and at most two.

    A body of at most 10 frames is a phantom when another one lives longer, and so is one that is wider
    than 0.8 of its height in most frames when another one is not. So the last body always stays.
    """
    if len(bodies) <= 1:
        return list(bodies)
    long = [body for body in bodies if len(body.frames) > _SHORT_FRAMES] or bodies
    persons = [body for body in long if not body.is_wide()] or long
    return sorted(persons, key=_Body.motion, reverse=True)[:_MAX_TRACKS]


def _tracks(bodies: Sequence[_Body]) -> tuple[int, list[Track]]:
    """The length of the clip from the first to the last frame in which a body is seen, and its tracks."""
    if not bodies:
        return 0, []
    first = int(min(body.frames[0] for body in bodies))
    last = int(max(body.frames[-1] for body in bodies))
    tracks = []
    for body in bodies:
        start = int(body.frames[0])
        x_tvc = np.zeros((int(body.frames[-1]) - start + 1, _JOINTS, 3), np.float32)
        x_tvc[body.frames - start] = body.x_tvc
        tracks.append(Track(start - first, x_tvc))
    return last - first + 1, tracks
