"""Long CSV tables: a line for every joint of every body in every frame.

The columns are clip, frame, body, joint (or landmark), x, y, and z or confidence (or visibility), in any
order, among others that are passed over. Commas, semicolons or tabs part them. Lines come in any order.
"""

import csv
import difflib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.errors import DamagedClip, nearest

_ALIASES = {"landmark": "joint", "visibility": "confidence"}
_OPTIONAL = ("clip", "body", "confidence")
_LINES_AT_ONCE = 1 << 10  # what stays in the cache is read three times as fast
_PLAIN = re.compile(r"[-+.0-9eE\n]*")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[-+]?\d{1,15}(\.0*)?", re.ASCII)
_WIDE = re.compile(r".+[_. ]x")  # head_x: a column for each joint

Cells = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Table:
    """The R lines of a table: numbers of clip and body, frame numbers, joints, coordinates, line numbers."""

    clips: tuple[str, ...]
    clip_r: NDArray[np.int64]
    body_r: NDArray[np.int64]
    frame_r: NDArray[np.int64]
    joint_r: NDArray[np.int64]
    x_rc: NDArray[np.float64]
    line_r: NDArray[np.int64]

    def rows_by_clip(self) -> list[NDArray[np.int64]]:
        """The rows of every clip, in the order of the lines."""
        order = np.argsort(self.clip_r, kind="stable")
        ends = np.cumsum(np.bincount(self.clip_r, minlength=len(self.clips)))
        return np.split(order, ends[:-1])


class _Numbering(dict[str, int]):
    """Numbers for texts, in the order in which they come."""

    def of(self, text: str) -> int:
        return self.setdefault(text.strip(), len(self))


def joint_places(joints: Sequence[str]) -> dict[str, int]:
    """Where joints stand, by their numbers, from 0, and by their names in small letters."""
    numbers = {str(place): place for place in range(len(joints))}
    return numbers | {joint.lower(): place for place, joint in enumerate(joints)}


def read_table(data: bytes, joints: Mapping[str, int], *, image: bool) -> Table:
    """Read a table; DamagedClip names the line of what is wrong. An empty coordinate or `nan` is a NaN.

    Without a column `clip` all lines are of the clip "", without `body` of one body.

    Args:
        data: the file, UTF-8, with or without a byte order mark.
        joints: where joints stand, by names in small letters; those of the table may have any.
        image: whether the coordinates are x, y and, if there is one, confidence; else x, y and z.
    """
    clips, bodies = _Numbering(), _Numbering()
    finders: dict[str, Callable[[str], int | None]] = {
        "clip": clips.of,
        "body": bodies.of,
        "frame": _whole_number,
        "joint": lambda text: joints.get(text.strip().lower()),
    }
    hints = {"joint": lambda text: _joint_hint(text, joints)}
    blocks = []
    for cells, line_r in _blocks(data, image):
        blank = ("",) * len(line_r)
        values = [name for name in ("x", "y", "confidence" if image else "z") if name in cells]
        found = [
            _looked_up(name, cells.get(name, blank), find, line_r, hints.get(name))
            for name, find in finders.items()
        ]
        x_rc = np.stack([_coordinates(name, cells[name], line_r) for name in values], axis=1)
        blocks.append((*found, x_rc, line_r))
    if not blocks:
        raise DamagedClip("holds no line but the first")
    clip_r, body_r, frame_r, joint_r, x_rc, line_r = map(np.concatenate, zip(*blocks, strict=True))
    return Table(tuple(clips), clip_r, body_r, frame_r, joint_r, x_rc, line_r)


def _joint_hint(text: str, joints: Mapping[str, int]) -> str:
    if text.isdecimal():
        return f"their numbers are 0 to {max(joints.values())}"
    return nearest(text.lower(), [name for name in joints if not name.isdecimal()])


def delimiter_of(text: str) -> str:
    """What parts the cells of a table: the comma, semicolon or tab that its first line has most of."""
    return max(",;\t", key=text.partition("\n")[0].count)


def clip_names(data: bytes) -> list[str]:
    """The names in the column `clip`; none without such a column. DamagedClip as `read_table`."""
    clips = _Numbering()
    for cells, _ in _blocks(data, None):
        for text in cells.get("clip", ()):
            clips.of(text)
    return list(clips)


def _blocks(data: bytes, image: bool | None) -> Iterator[tuple[Cells, NDArray[np.int64]]]:
    """The columns of some lines, and the numbers of these lines, again and again until the table ends."""
    text = _text(data)
    if not text.strip():
        raise DamagedClip("is empty")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True)
    try:
        columns = _columns(next(reader, []), image)
        line = reader.line_num + 1
        while rows := list(islice(reader, _LINES_AT_ONCE)):
            lines: Sequence[int] = range(line, line + len(rows))
            line += len(rows)
            if set(map(len, rows)) != {len(columns)}:
                rows, lines = _full_rows(rows, lines, len(columns))
            if rows:
                cells = dict(zip(columns, zip(*rows, strict=True), strict=True))
                yield cells, np.array(lines, np.int64)
    except csv.Error as error:
        raise DamagedClip(f"line {reader.line_num}: not valid CSV ({error})") from None


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DamagedClip(f"line {line}: byte {data[error.start]:#04x} is no UTF-8 text") from None


def _columns(header: Sequence[str], image: bool | None) -> list[str]:
    """The columns by their usual names; DamagedClip unless each stands once and none is missing."""
    columns = [_ALIASES.get(cell.strip().lower(), cell.strip().lower()) for cell in header]
    needed = () if image is None else ("frame", "joint", "x", "y", *(() if image else ("z",)))
    for name in needed:
        if name not in columns:
            hint = f"it has {', '.join(header)[:200]!r}"
            if any(map(_WIDE.fullmatch, columns)):
                hint = (
                    "write a line for each joint, frame,joint,x,y,z, not columns for each (docs/own_data.md)"
                )
            elif name == "z":
                hint = "for x and y of an image, write 'coordinates: image' in the about file"
            raise DamagedClip(f"line 1: has no column '{name}'; {hint}")
    for name in {*needed, *_OPTIONAL}:
        if columns.count(name) > 1:
            raise DamagedClip(f"line 1: column '{name}' stands twice")
    for name in set(_OPTIONAL) - set(columns):
        if slips := difflib.get_close_matches(name, columns, n=1, cutoff=0.8):
            raise DamagedClip(f"line 1: unknown column {slips[0]!r}; did you mean '{name}'?")
    return columns


def _full_rows(
    rows: Sequence[list[str]], lines: Sequence[int], width: int
) -> tuple[list[list[str]], list[int]]:
    """The rows that are not blank; DamagedClip when one has too few or too many cells."""
    full = [(row, line) for row, line in zip(rows, lines, strict=True) if any(row)]
    for row, line in full:
        if len(row) != width:
            hint = "; decimals need a point, not a comma" if len(row) > width else ""
            raise DamagedClip(f"line {line} has {len(row)} cells, the first line has {width}{hint}")
    return [row for row, _ in full], [line for _, line in full]


def _looked_up(
    name: str,
    texts: Sequence[str],
    find: Callable[[str], int | None],
    line_r: NDArray[np.int64],
    hint: Callable[[str], str] | None,
) -> NDArray[np.int64]:
    """What `find` says of every text; each text is looked up once, for most stand in many lines."""
    known = {text: find(text) for text in dict.fromkeys(texts)}
    for text, value in known.items():
        if value is None:
            line = line_r[texts.index(text)]
            mend = hint(text.strip()) if hint else "it should be a whole number"
            raise DamagedClip(f"line {line}: {name} {text[:50]!r} is not possible; {mend}")
    return np.array([known[text] for text in texts], np.int64)


def _whole_number(text: str) -> int | None:
    match = _WHOLE.fullmatch(text.strip())
    return int(text.partition(".")[0]) if match else None


def _coordinates(name: str, texts: Sequence[str], line_r: NDArray[np.int64]) -> NDArray[np.float64]:
    """The numbers in a column, (R,)."""
    if _PLAIN.fullmatch("\n".join(texts)):  # so that float() cannot be asked for 1_0 or infinity
        try:
            return np.array(list(map(float, texts)))
        except ValueError:
            pass  # something like an empty cell: look at each
    values = np.empty(len(texts))
    for row, text in enumerate(texts):
        value = text.strip()
        if value.lower() in ("", "nan"):
            values[row] = np.nan
        elif _NUMBER.fullmatch(value):
            values[row] = float(value)
        else:
            hint = "; write a point, not a comma" if _NUMBER.fullmatch(value.replace(",", ".")) else ""
            raise DamagedClip(f"line {line_r[row]}: {name} {text[:50]!r} is no number{hint}")
    return values
