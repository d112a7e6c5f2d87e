"""Parses the text of `.skeleton` files (its lines are described in `ntu.py`).

There are two routes. The plain one reads line by line, takes whatever is right, and names the line of
whatever is wrong. The quick one works on the bytes of the whole file at once and either reads just the same
or declines; it takes the files as the sensor's software writes them, and that is nearly all of them.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.source import text_of
from ssl_skeleton.errors import DamagedClip

JOINTS = 25
_BODY_VALUES = 10
_JOINT_VALUES = 12
_BODY_LINES = 2 + JOINTS
_FARTHEST = 1000.0  # metres

# Far beyond any clip of the data sets: limits on what a damaged file can ask for.
MAX_BYTES = 1 << 27
_MAX_FRAMES = 20_000
_MAX_BODIES = 6  # the sensor tracks no more at a time

_NEWLINE, _RETURN, _SPACE, _MINUS, _DOT, _ZERO, _TWO, _FIVE = b"\n\r -.025"
# A number with that many decimals and one digit before them is a whole number below 2**53 divided by a power
# of ten. float64 holds both exactly, so its division rounds just as reading the text does.
_MOST_DECIMALS = 14
_TENS = 10.0 ** np.arange(_MOST_DECIMALS + 1)
_U64 = np.uint64
_ZEROS, _TO_128, _HIGH_BITS = (_U64(0x0101010101010101 * byte) for byte in (_ZERO, 128 - 10, 128))
_EVEN = _U64(0x000000FF000000FF)


@dataclass(frozen=True)
class Body:
    """What is seen of one body: the frames (T,), ascending, and its joints in each (T, 25, 3), in metres."""

    frames: NDArray[np.int64]
    x_tvc: NDArray[np.float32]


@dataclass(frozen=True)
class _Sights:
    """Every sight of a body in file order: its frame (R,), its id, its joints (R, 25, 3)."""

    frames: NDArray[np.int64]
    ids: Sequence[Hashable]
    x_rvc: NDArray[np.float32]


def parse_bodies(data: bytes) -> list[Body]:
    """All bodies of a file that are seen at all, in the order in which their ids first stand in it.

    A body whose joints are all exactly zero is not seen in that frame. The eight values after a joint's
    coordinates are counted and not read, since those of real files are not always numbers.

    Raises DamagedClip, naming the line, when the file cannot be read right.
    """
    if len(data) > MAX_BYTES:
        raise DamagedClip(f"{len(data)} bytes are more than the {MAX_BYTES} that a clip may have")
    try:
        sights = _read_regular(data)
    except _Irregular:
        sights = _read_lines(data)
    numbers: dict[Hashable, int] = {}
    owners = np.array([numbers.setdefault(body, len(numbers)) for body in sights.ids], np.int64)
    order = np.argsort(owners, kind="stable")  # keeps the frames of a body ascending
    visible = np.asarray(sights.x_rvc.reshape(-1, JOINTS * 3).any(axis=1))
    order = order[visible[order]]
    frames, x_rvc = sights.frames[order], sights.x_rvc[order]
    cuts = np.flatnonzero(np.diff(owners[order])) + 1
    parts = zip(np.split(frames, cuts), np.split(x_rvc, cuts), strict=True)
    return [Body(frames, x_tvc) for frames, x_tvc in parts if len(frames)]


# The plain route


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

    def joint(self) -> list[float]:
        """The coordinates on the next line."""
        line = self.take("a joint")
        values = line.split()
        if len(values) != _JOINT_VALUES:
            raise DamagedClip(f"line {self.at}: {len(values)} values, not {_JOINT_VALUES}")
        try:
            x, y, z, _ = map(_number, (*values[:3], values[-1]))  # the last may be cut off in the middle
        except ValueError:
            text = line.strip()[:60]
            raise DamagedClip(f"line {self.at}: {text!r} are not {_JOINT_VALUES} numbers") from None
        return [x, y, z]

    def end(self) -> None:
        """Make sure that nothing but blank lines follows."""
        for number, line in enumerate(self.lines[self.at :], self.at + 1):
            if line.strip():
                raise DamagedClip(f"line {number}: more text follows the last frame")


def _number(text: str) -> float:
    """The number that a text is, without the liberties of Python's own literals."""
    if "_" in text:
        raise ValueError(text)
    return float(text)


def _read_lines(data: bytes) -> _Sights:
    """Read a file line by line."""
    cursor = _Cursor(text_of(data).splitlines())
    frames: list[int] = []
    ids: list[str] = []
    joints: list[list[float]] = []
    starts: list[int] = []  # the line before the joints of each sight
    for frame in range(cursor.count("the number of frames", _MAX_FRAMES)):
        here = set()
        for _ in range(cursor.count("the number of bodies", _MAX_BODIES)):
            body = cursor.body_id()
            if body in here:
                raise DamagedClip(f"line {cursor.at}: body {body[:40]} stands twice in frame {frame}")
            here.add(body)
            if cursor.count("the number of joints", JOINTS) != JOINTS:
                raise DamagedClip(f"line {cursor.at}: the number of joints is not {JOINTS}")
            frames.append(frame)
            ids.append(body)
            starts.append(cursor.at)
            joints += [cursor.joint() for _ in range(JOINTS)]
    cursor.end()
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is found as such
        x_rc = np.array(joints, np.float64).reshape(-1, 3).astype(np.float32)
    if not _are_near(x_rc):
        row, axis = np.argwhere(~(np.abs(x_rc) <= _FARTHEST))[0]
        line = starts[row // JOINTS] + row % JOINTS + 1
        raise DamagedClip(f"line {line}: coordinate {'xyz'[axis]} is {x_rc[row, axis]}")
    return _Sights(np.array(frames, np.int64), ids, x_rc.reshape(-1, JOINTS, 3))


def _are_near(x: NDArray[np.float32]) -> bool:
    """Whether all coordinates are finite and within 1 km of the camera."""
    return bool((np.abs(x) <= _FARTHEST).all())  # NaN fails the comparison too


# The quick route


class _Irregular(Exception):
    """The quick route cannot tell what a file says."""


def _read_regular(data: bytes) -> _Sights:
    """Read just what `_read_lines` reads, from the bytes of the whole file; _Irregular when in any doubt."""
    if not data.isascii():
        raise _Irregular
    data = data if data.endswith(b"\n") else data + b"\n"
    text = np.frombuffer(data, np.uint8)
    ends, gaps, last = _values(text)
    counts = np.diff(last, prepend=-1)  # values of each line
    before = last - counts  # last value of the line before each line
    starts = np.where(before < 0, 0, gaps[before] + 1)
    frames, ids = _sights(data, starts, ends[before + 1], counts)
    last = last[counts == _JOINT_VALUES]
    state = gaps[last - 1] + 1
    if (ends[last] - state != 1).any() or (text[state] - _ZERO > 9).any():
        raise _Irregular
    places = (last[:, None] + np.arange(1 - _JOINT_VALUES, 4 - _JOINT_VALUES)).ravel()
    x_rvc = _numbers(data, gaps[places - 1] + 1, ends[places]).reshape(-1, JOINTS, 3)
    if not _are_near(x_rvc):
        raise _Irregular
    return _Sights(frames, ids, x_rvc)


def _values(text: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where each value ends, the last byte before the next one, and which values are the last of their lines.

    One byte is both in most files; else spaces, and an end of line after them, may stand together.
    """
    marks = np.flatnonzero(text <= _SPACE)
    kinds = text[marks]
    newlines, returns = kinds == _NEWLINE, kinds == _RETURN
    if marks[0] == 0 or not (newlines | returns | (kinds == _SPACE)).all():
        raise _Irregular
    followed = np.zeros(len(marks), np.bool_)  # by another mark
    followed[:-1] = marks[1:] - marks[:-1] == 1
    if not followed.any() and not returns.any():
        return marks, marks, np.flatnonzero(newlines)
    # A line that is empty or begins with a space, and a return that ends a line alone.
    if (newlines & followed).any() or (text[marks[returns] + 1] != _NEWLINE).any():
        raise _Irregular
    ends, gaps = marks[np.append(True, ~followed[:-1])], marks[~followed]
    return ends, gaps, np.flatnonzero(text[gaps] == _NEWLINE)


def _sights(
    data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[bytes]]:
    """The frame and the id of every sight, from the first value of each line and how many values it has."""
    text = np.frombuffer(data, np.uint8)
    sizes = ends - starts
    is_frame = counts == 1
    is_frame[0] = False
    is_frame[1:] &= counts[:-1] != _BODY_VALUES  # these are numbers of joints
    lines = np.flatnonzero(is_frame)
    bodies = (text[starts[lines]] - _ZERO).astype(np.int64)
    if len(lines) > _MAX_FRAMES or (bodies > _MAX_BODIES).any() or (sizes[lines] != 1).any():
        raise _Irregular
    frames = np.repeat(np.arange(len(lines)), bodies)
    # All lines follow from the numbers of bodies.
    lines = 1 + np.arange(len(lines)) + _BODY_LINES * (np.cumsum(bodies) - bodies)
    body_lines = 2 + frames + _BODY_LINES * np.arange(len(frames))
    expected = np.full(1 + len(lines) + _BODY_LINES * len(frames), _JOINT_VALUES)
    expected[0] = expected[lines] = expected[body_lines + 1] = 1
    expected[body_lines] = _BODY_VALUES
    if not np.array_equal(counts, expected):
        raise _Irregular
    places = zip(starts[body_lines].tolist(), ends[body_lines].tolist(), strict=True)
    ids = [data[start:end] for start, end in places]
    joints = starts[body_lines + 1]
    if (
        data[: ends[0]] != b"%d" % len(lines)
        or (sizes[body_lines + 1] != 2).any()
        or ((text[joints] != _TWO) | (text[joints + 1] != _FIVE)).any()
        or not all(map(bytes.isdigit, ids))
        or len(set(zip(frames.tolist(), ids, strict=True))) != len(ids)  # one stands twice in a frame
    ):
        raise _Irregular
    return frames, ids


def _numbers(data: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.float32]:
    """The numbers in `data[start:end]`; those of no plain form, such as 1.2e-05, are read one by one."""
    text = np.frombuffer(data, np.uint8)
    minus = text[starts] == _MINUS
    starts_whole = starts + minus
    digit = text[starts_whole] - _ZERO
    decimals = ends - starts_whole - 2
    odd = (digit > 9) | (text[starts_whole + 1] != _DOT) | (decimals < 1) | (decimals > _MOST_DECIMALS)
    decimals = np.clip(decimals, 1, _MOST_DECIMALS)
    fractions = _digits(data, ends, np.minimum(decimals, 8))
    long = np.flatnonzero(decimals > 8)
    fractions[long] += 1e8 * _digits(data, ends[long] - 8, decimals[long] - 8)
    tens = _TENS[decimals]
    values: NDArray[np.float64] = (digit * tens + fractions) / tens * np.where(minus, -1.0, 1.0)
    odd |= np.isnan(fractions)
    try:
        for place in np.flatnonzero(odd).tolist():
            values[place] = _number(data[starts[place] : ends[place]].decode())
    except ValueError:
        raise _Irregular from None
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _digits(data: bytes, ends: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """The whole numbers in the last `count` (1 to 8) bytes before `ends`; NaN where one is no digit.

    Eight bytes are one integer, and each step joins neighbours: digits to pairs, to fours, to all eight
    (Lemire, "Quickly parsing eight digits", 2018). The first digit is the lowest byte.
    """
    eights = np.ndarray(max(len(data) - 7, 0), "<u8", data, strides=(1,))  # one from every byte on
    spare = (64 - 8 * count).astype(np.uint64)
    bytes_8 = ((eights[ends - 8] ^ _ZEROS) >> spare) << spare
    odd = ((bytes_8 + _TO_128) | bytes_8) & _HIGH_BITS != 0
    pairs = bytes_8 * _U64(10) + (bytes_8 >> _U64(8))
    first, second = pairs & _EVEN, (pairs >> _U64(16)) & _EVEN
    whole = (first * _U64(1_000_000 << 32 | 100) + second * _U64(10_000 << 32 | 1)) >> _U64(32)
    return np.where(odd, np.nan, whole)
