"""What readers of text share: lines, numbers, frames by their numbers, and bodies cut to what is seen."""

import codecs
from collections.abc import Iterable, Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.recording import Track, check_coordinates
from ssl_skeleton.errors import DamagedClip

_PLAIN = b"0123456789+-.eE"  # neither nan, inf, 0x10 nor 1_0 can be written with these
_LETTERS = _PLAIN + b", \t\r\n"  # a comma parts two numbers as a space does
_LARGEST = 1e6
_LONGEST = 64  # characters a number takes at most, on the average of its line


def without_mark(data: bytes) -> bytes:
    """Text without the byte-order mark that some programs of Windows write before it."""
    return data.removeprefix(codecs.BOM_UTF8)


def text_lines(data: bytes) -> list[bytes]:
    """The lines of a text, without the byte-order mark that may stand before the first one."""
    return without_mark(data).splitlines()


def decimals(words: Sequence[bytes], line: int) -> list[float]:
    """The numbers in texts, each within a million: no nan, no inf, no 1_0.

    Raises DamagedClip, naming the line and the first text that is none.
    """
    try:
        values = list(map(float, words))
        if max(map(abs, values)) <= _LARGEST and not b"".join(words).translate(None, _PLAIN):
            return values
    except ValueError:
        pass
    if len(words) > 1:
        for word in words:
            decimals([word], line)
    shown = b" ".join(words)[:40].decode("ascii", "backslashreplace")
    raise DamagedClip(f"line {line}: {shown!r} is no number within {_LARGEST:.0f}")


def number_rows(lines: Sequence[bytes], columns: int, first_line: int = 1) -> NDArray[np.float64]:
    """The numbers on all lines that are not blank, (R, columns), each within a million.

    Args:
        lines: what to read; numbers are parted by white space or commas.
        columns: how many numbers stand on a line.
        first_line: where the first of the lines stands in its file, for messages.

    Raises DamagedClip, naming the line, when anything else stands there.
    """
    text = b"\n".join(lines).replace(b",", b" ")
    if not text.strip():
        return np.zeros((0, columns))
    if text.translate(None, _LETTERS) or max(map(len, lines)) > _LONGEST * columns:
        _refuse(lines, columns, first_line)
    try:
        rows = np.loadtxt(text.decode().splitlines(), comments=None, ndmin=2)
    except ValueError:
        _refuse(lines, columns, first_line)
    if rows.shape[1] != columns or not (np.abs(rows) <= _LARGEST).all():
        _refuse(lines, columns, first_line)
    return rows


def _refuse(lines: Sequence[bytes], columns: int, first_line: int) -> NoReturn:
    """Look for the fault line by line, and name it."""
    for number, line in enumerate(lines, first_line):
        if len(line) > _LONGEST * columns:
            raise DamagedClip(f"line {number}: {len(line)} characters are too many for {columns} numbers")
        values = line.replace(b",", b" ").split()
        if values and len(values) != columns:
            raise DamagedClip(f"line {number}: {len(values)} values, not {columns}")
        if values:
            decimals(values, number)
    raise DamagedClip(f"lines {first_line} to {first_line + len(lines) - 1} are no rows of numbers")


def frame_order(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """The rows of a recording by their frame numbers, ascending; of equal numbers the first row alone.

    Raises DamagedClip when a frame number is no whole number.
    """
    wrong = np.flatnonzero(numbers != np.floor(numbers))
    if len(wrong):
        raise DamagedClip(f"row {wrong[0] + 1}: {numbers[wrong[0]]} is no frame number")
    return np.unique(numbers, return_index=True)[1].astype(np.int64)


def seen_tracks(bodies: Iterable[NDArray[np.float32]]) -> list[Track]:
    """The tracks of bodies (T, V, 3) over the whole clip: each from its first to its last row not zero.

    Raises DamagedClip unless all coordinates are those of something within 1 km, in metres.
    """
    tracks = []
    for number, x_tvc in enumerate(bodies, 1):
        try:
            check_coordinates(x_tvc, joints=x_tvc.shape[1])
        except DamagedClip as error:
            raise DamagedClip(f"body {number}: {error}") from None
        seen = np.flatnonzero(x_tvc.any(axis=(1, 2)))
        if len(seen):
            tracks.append(Track(int(seen[0]), x_tvc[seen[0] : seen[-1] + 1]))
    return tracks
