"""People's own recordings: NumPy arrays and long CSV tables, described by an about file (docs/own_data.md).

`.npy`  one clip: (T, V, C), or (M, T, V, C) for M bodies; named as the file, its folder before it: walk/01
`.npz`  the same when it holds the key `x` or one array alone; else each key is a clip of that name
`.csv`  a line a joint of a body in a frame (`table.py`); each name in the column `clip` is a clip

World coordinates have C = 3; those of an image, x and y down, C = 2, or 3 with a confidence. A joint with a
NaN is missing and becomes zero, and so does a joint that a table leaves out. Frame numbers that a table
leaves out, between the first and the last of its clip, are frames in which nobody is seen. The order of
bodies is kept.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.arrays import Array, npz_names, read_npy, read_npz
from ssl_skeleton.data.parsing.table import Table, clip_names, joint_places, read_table
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Outcome
from ssl_skeleton.data.readers.described import (
    Described,
    check_gaps,
    clip_name,
    needed,
    recordings_in,
    seen_part,
)
from ssl_skeleton.data.recording import Track
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.errors import DamagedClip

_MOST_BYTES = 1 << 31
# Frames without anybody that a table may ask for: so many, and so many for each of its lines.
_MOST_GAPS = 30_000
_MOST_SPREAD = 20
_NOTE = "x and y in the units of the recordings, y up from the top of the image"
_ALONE = "x"


class Own(Described):
    """Reader of .npy, .npz and .csv files."""

    def __init__(self, source: Source, about: About | None) -> None:
        about = needed(about, "own")
        entries = recordings_in(source, about, ".npy", ".npz", ".csv")
        clips: list[str] = []
        if about.config.labels or about.config.names:
            clips = [clip for entry in entries for clip in _clips_in(source, entry)]
        super().__init__(
            source, about, entries=entries, clips=clips, layout=about.layout(), usual="world", note=_NOTE
        )

    def read(self, entry: Entry) -> Sequence[Outcome]:
        """The clips of a file; DamagedClip when it cannot be read right as a whole."""
        data = self.source.read(entry, _MOST_BYTES)
        ending = _ending(entry)
        if ending == ".npy":
            return [self._from_array(clip_name(entry), read_npy(data))]
        if ending == ".csv":
            table = read_table(data, joint_places(self.facts.layout.joints), image=self.is_image)
            return list(table_clips(self, table, clip_name(entry)))
        alone = _alone(npz_names(data))
        arrays = [(name, array) for name, array in read_npz(data) if alone in (None, name)]
        return [self._outcome(clip_name(entry) if alone else name, array) for name, array in arrays]

    def _outcome(self, clip: str, array: Array | DamagedClip) -> Outcome:
        if isinstance(array, DamagedClip):
            return array
        try:
            return self._from_array(clip, array)
        except DamagedClip as error:
            return DamagedClip(f"clip {clip!r}: {error}")

    def _from_array(self, clip: str, array: Array) -> Outcome:
        if array.ndim not in (3, 4):
            joints = len(self.facts.layout.joints)
            raise DamagedClip(
                f"shape {array.shape} is neither (frames, joints, coordinates) nor with bodies before, "
                f"here (frames, {joints}, ...)"
            )
        bodies = array[None] if array.ndim == 3 else array
        tracks = [track for x_tvc in bodies for track in seen_part(self.stored(x_tvc))]
        return self.recording(clip, bodies.shape[1], tracks)


def table_clips(reader: Described, table: Table, unnamed: str) -> Iterator[Outcome]:
    """The clips of a table; lines without a clip's name make the clip `unnamed`."""
    left = _MOST_GAPS + _MOST_SPREAD * len(table.line_r)
    for name, rows in zip(table.clips, table.rows_by_clip(), strict=True):
        clip = name or unnamed
        try:
            first, last = int(table.frame_r[rows].min()), int(table.frame_r[rows].max())
            check_gaps(first, last, len(np.unique(table.frame_r[rows])))
            tracks = _tracks(reader, table, rows, first)
            left -= sum(len(track.x_tvc) for track in tracks)
            if left < 0:
                raise DamagedClip("the frames of this file are mostly gaps; it is read no further")
            yield reader.recording(clip, last - first + 1, tracks)
        except DamagedClip as error:
            yield DamagedClip(f"clip {clip!r}: {error}")
            if left < 0:
                return


def _tracks(reader: Described, table: Table, rows: NDArray[np.int64], first: int) -> list[Track]:
    tracks = []
    for body in np.unique(table.body_r[rows]):
        own = rows[table.body_r[rows] == body]
        frame_r, joint_r = table.frame_r[own], table.joint_r[own]
        start, frames = int(frame_r.min()), int(np.ptp(frame_r)) + 1
        check_gaps(start, start + frames - 1, len(np.unique(frame_r)))
        joints = len(reader.facts.layout.joints)
        place_r = (frame_r - start) * joints + joint_r
        kept = np.unique(place_r, return_index=True)[1]
        if len(kept) < len(own):
            twice = np.setdiff1d(np.arange(len(own)), kept)[0]
            raise DamagedClip(
                f"line {table.line_r[own[twice]]}: joint '{reader.facts.layout.joints[joint_r[twice]]}' "
                f"stands twice in frame {frame_r[twice]}"
            )
        x_tvc = np.zeros((frames * joints, table.x_rc.shape[1]))
        x_tvc[place_r] = table.x_rc[own]
        tracks += seen_part(reader.stored(x_tvc.reshape(frames, joints, -1)), start - first)
    return tracks


def _clips_in(source: Source, entry: Entry) -> list[str]:
    """The names of the clips in a file; of a damaged one none, for reading it will say what is wrong."""
    if _ending(entry) == ".npy":
        return [clip_name(entry)]
    try:
        data = source.read(entry, _MOST_BYTES)
        names = clip_names(data) if _ending(entry) == ".csv" else npz_names(data)
    except (DamagedClip, OSError):
        return []
    if _ending(entry) == ".npz":
        return [clip_name(entry)] if _alone(names) else names
    return [name or clip_name(entry) for name in names or [""]]


def _alone(names: Sequence[str]) -> str | None:
    """The array of a .npz file that is one clip; None when each is a clip."""
    return _ALONE if _ALONE in names else names[0] if len(names) == 1 else None


def _ending(entry: Entry) -> str:
    return entry.name.lower()[-4:]
