"""Clips from long tables (`parsing/table.py`), for every format that has them."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.table import Table
from ssl_skeleton.data.readers.base import Outcome
from ssl_skeleton.data.readers.described import Described, check_gaps, check_room, seen_part
from ssl_skeleton.data.readers.labels import shortened
from ssl_skeleton.data.recording import Track
from ssl_skeleton.errors import DamagedClip

_MOST_BODIES = 100  # in a clip

Rows = NDArray[np.int64]


def table_clips(reader: Described, table: Table, unnamed: str) -> Iterator[Outcome]:
    """The clips of a table; lines without a clip's name make the clip `unnamed`."""
    places = 0  # frames times joints of all bodies so far
    for name, rows in zip(table.clips, table.rows_by_clip(), strict=True):
        clip = name or unnamed
        try:
            first, last = int(table.frame_r[rows].min()), int(table.frame_r[rows].max())
            check_gaps(first, last, len(np.unique(table.frame_r[rows])))
            bodies = _bodies(table, rows)
            frames = sum(int(np.ptp(table.frame_r[own])) + 1 for own in bodies)
            places += frames * len(reader.facts.layout.joints)
            try:
                check_room(places, len(table.line_r))
            except DamagedClip as error:
                yield DamagedClip(f"clip {shortened(clip)!r}: {error}; the file is read no further")
                return
            tracks = [track for own in bodies for track in _track(reader, table, own, first)]
            yield reader.recording(clip, last - first + 1, tracks)
        except DamagedClip as error:
            yield DamagedClip(f"clip {shortened(clip)!r}: {error}")


def _bodies(table: Table, rows: Rows) -> list[Rows]:
    """The rows of each body, in the order in which bodies first stand in the table."""
    body_r = table.body_r[rows]
    bodies = np.unique(body_r)
    if len(bodies) > _MOST_BODIES:
        raise DamagedClip(f"{len(bodies)} bodies are more than the {_MOST_BODIES} that a clip may have")
    return [rows[body_r == body] for body in bodies]


def _track(reader: Described, table: Table, rows: Rows, first: int) -> list[Track]:
    """The track of the body in these rows, if it is seen."""
    names = reader.facts.layout.joints
    frame_r, joint_r = table.frame_r[rows], table.joint_r[rows]
    start, frames = int(frame_r.min()), int(np.ptp(frame_r)) + 1
    place_r = (frame_r - start) * len(names) + joint_r
    kept = np.unique(place_r, return_index=True)[1]
    if len(kept) < len(rows):
        twice = np.setdiff1d(np.arange(len(rows)), kept)[0]
        raise DamagedClip(
            f"line {table.line_r[rows[twice]]}: joint '{names[joint_r[twice]]}' "
            f"stands twice in frame {frame_r[twice]}"
        )
    x_tvc = np.zeros((frames * len(names), table.x_rc.shape[1]))
    x_tvc[place_r] = table.x_rc[rows]
    return seen_part(reader.stored(x_tvc.reshape(frames, len(names), -1)), start - first)
