"""Checking a store from end to end: unlike `open_store`, it goes on after a fault and finds all."""

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.recording import IMAGE, METRES
from ssl_skeleton.data.store import (
    COLUMNS,
    FILES,
    StoreMeta,
    meta_sum,
    open_store,
    read_meta,
    sha256,
)
from ssl_skeleton.data.untrusted import load_array, read_tree, table_size
from ssl_skeleton.errors import UserError

_ROWS_AT_ONCE = 1 << 12
_LISTED = 20  # faults of one kind
_MANY = 1 << 32  # clips, where nothing says how many
_NUMBER = re.compile(r"-?[0-9]{1,18}")  # 18 digits always fit 64 bits

Columns = Mapping[str, NDArray[np.int64]]
Part = TypeVar("Part")


def check_store(path: Path) -> list[str]:
    """All faults of the store at `path`, one line each; none when it opens and is as it was written.

    Raises UserError when `path` is no store at all.
    """
    if not (path / "meta.json").is_file():
        raise UserError(f"{path}: not a prepared store; make one with: python -m ssl_skeleton.prepare")
    faults = [*_file_faults(path), *_sum_faults(path)]
    meta = _attempt(lambda: read_meta(path), faults)
    table = _read_table(path / "clips.csv", meta.clips if meta else _MANY, faults)
    frames, tracks = (_read_array(path / name, faults) for name in ("frames.npy", "tracks.npy"))
    if meta:
        faults += [f"{path / 'meta.json'}: {fault}" for fault in _meta_faults(meta, table, frames, tracks)]
    if table:
        classes = len(meta.classes) if meta else None
        faults += [f"{path / 'clips.csv'}: {fault}" for fault in _table_faults(table, classes)]
    if frames is not None:
        faults += [f"{path / 'frames.npy'}: {fault}" for fault in _frame_faults(frames)]
    if tracks is not None and table and tracks.dtype == np.int64 and tracks.shape[1:] == (4,):
        rows = len(frames) if frames is not None and frames.ndim else None
        found = _track_faults(np.asarray(tracks), table, rows)
        faults += [f"{path / 'tracks.npy'}: {fault}" for fault in found]
    faults += [f"{path / 'skipped.csv'}: {fault}" for fault in _skipped_faults(path / "skipped.csv")]
    if not faults:
        _attempt(lambda: open_store(path), faults)  # nothing that opening refuses may pass as good
    return faults


def _attempt(read: Callable[[], Part], faults: list[str]) -> Part | None:
    """What `read` gives; a refusal becomes a fault."""
    try:
        return read()
    except UserError as error:
        faults.append(str(error))
        return None


def _file_faults(path: Path) -> Iterator[str]:
    there = {file.name for file in path.iterdir()}
    for name in sorted(FILES):
        if not (path / name).is_file():
            yield f"{path / name}: missing, or not a file"
    for name in sorted(there - FILES):
        shown = name if name.isprintable() else repr(name)
        yield f"{path}/{shown}: does not belong to a store"


def _sum_faults(path: Path) -> Iterator[str]:
    """Files that are not what they were when the sums were taken; meta.json may have other faults."""
    try:
        tree = read_tree(path / "meta.json")
    except UserError:
        return
    sums = tree.get("sha256") if isinstance(tree, dict) else None
    if not isinstance(sums, dict):
        return
    for name in sorted({*FILES, *sums}):
        if name not in sums:
            yield f"{path / 'meta.json'}: sha256: the sum of {name} is missing"
        elif name == "meta.json" and sums[name] != meta_sum(tree):
            yield f"{path / name}: changed since it was written: it is not what its own SHA-256 sum says"
        elif name not in FILES:
            yield f"{path / 'meta.json'}: sha256: {name!r} is no file of a store"
        elif name != "meta.json" and (path / name).is_file() and sha256(path / name) != sums[name]:
            yield f"{path / name}: changed since it was written: its SHA-256 sum is not that in meta.json"


def _read_array(path: Path, faults: list[str]) -> NDArray[Any] | None:
    return _attempt(lambda: load_array(path), faults) if path.is_file() else None


class _Table:
    """The lines of clips.csv that could be read: names, line numbers, and columns of numbers, (N,) each."""

    def __init__(self, names: list[str], lines: list[int], numbers: list[list[int]]) -> None:
        self.names = names
        self.lines = lines
        values = np.array(numbers, dtype=np.int64).reshape(len(names), len(COLUMNS) - 1)
        self.columns: Columns = dict(zip(COLUMNS[1:], values.T, strict=True))

    def where(self, clip: int) -> str:
        """A clip as it is named in faults."""
        return f"line {self.lines[clip]}, clip {self.names[clip]!r}"


def _read_table(path: Path, clips: int, faults: list[str]) -> _Table | None:
    """The table of clips; None when a line cannot be read, for then clips cannot be counted off."""
    if not path.is_file() or _attempt(lambda: table_size(path, clips), faults) is None:
        return None
    found = len(faults)
    names, lines, numbers = [], [], []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            if tuple(next(reader, ())) != COLUMNS:
                faults.append(f"{path}: line 1 does not read {','.join(COLUMNS)}")
            for cells in reader:
                fault = _line_fault(cells)
                if fault:
                    faults.append(f"{path}: line {reader.line_num}: {fault}")
                    continue
                names.append(cells[0])
                lines.append(reader.line_num)
                numbers.append([int(cell) for cell in cells[1:]])
    except (OSError, ValueError, csv.Error) as error:
        faults.append(f"{path}: cannot be read as a table ({error})")
    return _Table(names, lines, numbers) if len(faults) == found else None


def _line_fault(cells: list[str]) -> str | None:
    if len(cells) != len(COLUMNS):
        return f"{len(cells)} cells, not {len(COLUMNS)}"
    wrong = [name for name, cell in zip(COLUMNS[1:], cells[1:], strict=True) if not _NUMBER.fullmatch(cell)]
    return f"{', '.join(wrong)}: not a whole number" if wrong else None


def _meta_faults(
    meta: StoreMeta, table: _Table | None, frames: NDArray[Any] | None, tracks: NDArray[Any] | None
) -> Iterator[str]:
    """What meta.json says against what the other files hold."""
    if meta.coordinates not in (METRES, IMAGE):
        known = " or ".join(" ".join(coordinates) for coordinates in (METRES, IMAGE))
        yield f"coordinates: should be {known}, not {' '.join(meta.coordinates)}"
    if len(set(meta.classes)) != len(meta.classes):
        yield "classes: a name stands twice"
    if table and len(table.names) != meta.clips:
        yield f"clips: {meta.clips}, but clips.csv holds {len(table.names)}"
    if table and table.columns["bodies"].max(initial=0) != meta.bodies:
        yield f"bodies: {meta.bodies}, but the most in clips.csv are {table.columns['bodies'].max(initial=0)}"
    wanted = (meta.rows, len(meta.layout.joints), len(meta.coordinates))
    for name, array, kind in (
        ("frames.npy", frames, (wanted, "<f4")),
        ("tracks.npy", tracks, ((meta.tracks, 4), "<i8")),
    ):
        if array is not None and (array.shape, array.dtype.str) != kind:
            found = f"{array.shape} of {array.dtype.str}"
            yield f"calls for {kind[0]} of {kind[1]} in {name}, which holds {found}"


def _table_faults(table: _Table, classes: int | None) -> Iterator[str]:
    """Values of clips.csv that cannot be; `classes` is None when their number is not known."""
    first: dict[str, int] = {}
    for clip, name in enumerate(table.names):
        if first.setdefault(name, clip) != clip:
            yield f"{table.where(clip)}: the name stands in line {table.lines[first[name]]} already"
    least = {"frames": 1, "bodies": 1}
    for column, values in table.columns.items():
        for clip in np.flatnonzero(values < least.get(column, -1)).tolist():
            yield f"{table.where(clip)}: {column} {values[clip]} is below {least.get(column, -1)}"
    if classes is not None:
        labels = table.columns["label"]
        for clip in np.flatnonzero(labels >= classes).tolist():
            yield f"{table.where(clip)}: label {labels[clip]} is not below the number of classes, {classes}"


def _frame_faults(frames: NDArray[Any]) -> Iterator[str]:
    """Runs of rows that are not finite."""
    if frames.dtype.kind != "f" or not frames.ndim:
        return
    wrong: list[int] = []
    for start in range(0, len(frames), _ROWS_AT_ONCE):
        part = np.asarray(frames[start : start + _ROWS_AT_ONCE])
        wrong += (np.flatnonzero(~np.isfinite(part.reshape(len(part), -1)).all(axis=1)) + start).tolist()
    runs = np.split(wrong, np.flatnonzero(np.diff(wrong) != 1) + 1) if wrong else []
    for run in runs:
        yield f"row {run[0]} is not finite" if len(run) == 1 else f"rows {run[0]} to {run[-1]} are not finite"


def _track_faults(tracks: NDArray[Any], table: _Table, rows: int | None) -> Iterator[str]:
    """Tracks that do not fit their clips, the frames, or each other; `rows` is None when not known."""
    clip, row, first, frames = tracks.T
    lengths = table.columns["frames"]
    known = (clip >= 0) & (clip < len(lengths))
    length = np.where(known, lengths[np.where(known, clip, 0)], 0) if len(lengths) else np.zeros_like(clip)
    end = np.concatenate([[0], row + frames])
    wrong = {
        "its clip is not in clips.csv": ~known,
        "its clip comes before that of the track before": np.diff(clip, prepend=clip[:1]) < 0,
        "it does not begin where the track before ends in frames.npy": row != end[:-1],
        "it has no frames": frames < 1,
        # Differences of what is not negative cannot overflow; sums could.
        "it lies outside its clip": known & ((first < 0) | (frames > length - first)),
    }
    if rows is not None:
        wrong["it lies outside frames.npy"] = (row < 0) | (frames > rows - row)
        if end[-1] != rows:
            yield f"the tracks end at row {end[-1]}, but frames.npy has {rows} rows"
    for what, mask in wrong.items():
        places = [f"track {track} {tuple(tracks[track].tolist())}" for track in np.flatnonzero(mask).tolist()]
        yield from _first(places, what)
    bodies = table.columns["bodies"]
    counts = np.bincount(clip[known], minlength=len(bodies))
    wrong_counts = [
        f"{counts[clip]} tracks of the clip that has {bodies[clip]} bodies in clips.csv ({table.where(clip)})"
        for clip in np.flatnonzero(counts != bodies).tolist()
    ]
    yield from _first(wrong_counts)


def _first(places: Sequence[str], what: str = "") -> Iterator[str]:
    """The first faults of one kind, and how many more there are: one cause can make thousands."""
    end = f": {what}" if what else ""
    yield from (f"{place}{end}" for place in places[:_LISTED])
    if len(places) > _LISTED:
        yield f"and {len(places) - _LISTED} more{end or ' of this kind'}"


def _skipped_faults(path: Path) -> Iterator[str]:
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if len(cells) != 2:
                    yield f"line {reader.line_num}: {len(cells)} cells, not 2"
    except (OSError, ValueError, csv.Error) as error:
        yield f"cannot be read as a table ({error})"
