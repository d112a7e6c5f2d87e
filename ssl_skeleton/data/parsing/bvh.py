"""The text of a BVH file: a tree of joints, then a line of numbers a frame."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np

from ssl_skeleton.data.parsing.kinematics import Array
from ssl_skeleton.data.parsing.rows import decimals, number_rows, text_lines
from ssl_skeleton.errors import DamagedClip

_CHANNELS = tuple(f"{axis}{kind}" for kind in ("position", "rotation") for axis in "xyz")
_MOST_LINES = 5_000_000
_MOST_JOINTS = 1000
_MOST_DEPTH = 200
_LONGEST_NAME = 100
_END_SITE = -1
_FRAMES = re.compile(rb"\s*Frames\s*:\s*(\S+)\s*", re.IGNORECASE)
_FRAME_TIME = re.compile(rb"\s*Frame\s+Time\s*:\s*(\S+)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Joint:
    """A joint: its parent's place among the joints (-1: none), its offset (3,), and its numbers in order."""

    name: str
    parent: int
    offset_c: Array
    channels: tuple[str, ...]


class Header(NamedTuple):
    """The joints, parents first, the seconds from frame to frame, and how many frames the file says it has.

    `start` is the place of the first line of numbers among the lines, counted from 0.
    """

    joints: tuple[Joint, ...]
    frame_time: float
    frames: int
    start: int


@dataclass(frozen=True)
class Motion:
    """The joints, parents first, the seconds from frame to frame, and the numbers of all channels (T, K)."""

    joints: tuple[Joint, ...]
    frame_time: float
    values_tk: Array


def read_bvh(data: bytes) -> Motion:
    """Read a file; DamagedClip, naming the line, when it cannot be read right."""
    lines = _lines(data)
    joints, frame_time, frames, start = _header(lines)
    width = sum(len(joint.channels) for joint in joints)
    values_tk = number_rows(lines[start:], width, start + 1)
    if len(values_tk) != frames:
        raise DamagedClip(f"says 'Frames: {frames}', but {len(values_tk)} follow from line {start + 1} on")
    return Motion(joints, frame_time, values_tk)


def read_header(data: bytes) -> Header:
    """Read what stands before the numbers; DamagedClip, naming the line, when it cannot be read right."""
    return _header(_lines(data))


def _lines(data: bytes) -> list[bytes]:
    if data.count(b"\n") + data.count(b"\r") > _MOST_LINES:
        raise DamagedClip(f"more than {_MOST_LINES} lines")
    return text_lines(data)


def _header(lines: Sequence[bytes]) -> Header:
    motion = next((at for at, line in enumerate(lines) if line.strip().upper() == b"MOTION"), None)
    if motion is None:
        raise DamagedClip(f"line {len(lines) + 1}: the file ends where MOTION should stand")
    joints = _Tree(_hierarchy(lines[:motion])).joints
    count, line = _value(lines, motion + 1, _FRAMES, "Frames:")
    if not count.isdigit() or not 0 < int(count[:18]) <= _MOST_LINES:
        shown = count[:40].decode("ascii", "backslashreplace")
        raise DamagedClip(f"line {line}: {shown!r} is no number of frames")
    time, start = _value(lines, line, _FRAME_TIME, "Frame Time:")
    (frame_time,) = decimals([time], start)
    if not 1e-4 <= frame_time <= 10:
        raise DamagedClip(f"line {start}: Frame Time {frame_time:g} is not 0.0001 to 10 seconds")
    if not any(joint.channels for joint in joints):
        raise DamagedClip("no joint has a channel")
    return Header(joints, frame_time, int(count), start)


def _hierarchy(lines: Sequence[bytes]) -> str:
    """The text of lines; joints may have names in any letters."""
    data = b"\n".join(lines)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DamagedClip(f"line {line}: byte {data[error.start]:#04x} is no UTF-8 text") from None


def _value(lines: Sequence[bytes], start: int, pattern: re.Pattern[bytes], key: str) -> tuple[bytes, int]:
    """What stands after a key on the first line from `start` on that is not blank; its number."""
    at = next((at for at in range(start, len(lines)) if lines[at].strip()), len(lines))
    match = pattern.fullmatch(lines[at]) if at < len(lines) else None
    if match is None:
        raise DamagedClip(f"line {at + 1}: should read {key} and a number")
    return match[1], at + 1


class _Tree:
    """Walks through the words of a hierarchy; `joints` are those it finds."""

    def __init__(self, text: str) -> None:
        self._line = 0
        self._words = self._split(text)
        self._names: list[str] = []
        self._parents: list[int] = []
        self._offsets: dict[int, Array] = {}
        self._channels: dict[int, tuple[str, ...]] = {}
        if self._take("HIERARCHY").upper() != "HIERARCHY" or self._take("ROOT").upper() != "ROOT":
            self._refuse("the file does not begin with HIERARCHY and ROOT")
        self._walk()
        for word in self._words:
            self._refuse(f"{word[:40]!r} stands after the first skeleton; one is read")
        for joint, name in enumerate(self._names):
            if joint not in self._offsets:
                raise DamagedClip(f"joint '{name}' has no OFFSET")
        self.joints = tuple(
            Joint(name, parent, self._offsets[joint], self._channels.get(joint, ()))
            for joint, (name, parent) in enumerate(zip(self._names, self._parents, strict=True))
        )

    def _walk(self) -> None:
        path = [self._open_joint(-1)]
        while path:
            word = self._take("a joint or its end").upper()
            if word == "JOINT" and path[-1] != _END_SITE:
                path.append(self._open_joint(path[-1]))
            elif word == "END" and path[-1] != _END_SITE:
                self._name()  # Site
                path.append(_END_SITE)
            elif word == "OFFSET":
                self._once(self._offsets, path[-1])
                offset_c = np.array(self._decimals(3))
                if path[-1] != _END_SITE:
                    self._offsets[path[-1]] = offset_c
            elif word == "CHANNELS" and path[-1] != _END_SITE:
                self._once(self._channels, path[-1])
                self._channels[path[-1]] = self._take_channels()
            elif word == "}":
                path.pop()
            else:
                self._refuse(f"{word[:40]!r} has no place here")
            if len(path) > _MOST_DEPTH:
                self._refuse(f"joints lie more than {_MOST_DEPTH} deep")

    def _split(self, text: str) -> Iterator[str]:
        for self._line, line in enumerate(text.split("\n"), 1):
            yield from line.replace("{", " { ").replace("}", " } ").split()

    def _take(self, what: str) -> str:
        word = next(self._words, None)
        if word is None:
            self._refuse(f"the hierarchy ends where {what} should stand")
        return word

    def _name(self) -> str:
        """The words on a line up to the bracket that opens, which may stand on the next one."""
        line, words = self._line, [self._take("a name")]
        while (word := self._take("{")) != "{":
            words.append(word)
            if self._line != line or word == "}":
                self._refuse(f"{' '.join(words)[:40]!r} should be a name, followed by {{")
        return " ".join(words)

    def _open_joint(self, parent: int) -> int:
        name = self._name()
        if not name.isprintable() or len(name) > _LONGEST_NAME:
            self._refuse(f"{name[:40]!r} is no name of a joint")
        if len(self._names) == _MOST_JOINTS:
            self._refuse(f"more than {_MOST_JOINTS} joints")
        if name in self._names:
            self._refuse(f"joint '{name}' stands twice")
        self._names.append(name)
        self._parents.append(parent)
        return len(self._names) - 1

    def _once(self, kept: Mapping[int, object], joint: int) -> None:
        if joint in kept:
            self._refuse(f"joint '{self._names[joint]}' has this twice")

    def _decimals(self, count: int) -> list[float]:
        return decimals([self._take("a number").encode() for _ in range(count)], self._line)

    def _take_channels(self) -> tuple[str, ...]:
        count = self._take("the number of channels")
        if count not in ("0", "1", "2", "3", "4", "5", "6"):
            self._refuse(f"{count[:40]!r} channels are not 0 to 6")
        channels = tuple(self._take("a channel").lower() for _ in range(int(count)))
        if len(set(channels)) < len(channels) or not set(channels) <= set(_CHANNELS):
            self._refuse(f"{' '.join(channels)[:80]!r} are not Xposition to Zrotation, each once")
        return channels

    def _refuse(self, fault: str) -> NoReturn:
        raise DamagedClip(f"line {self._line}: {fault}")
