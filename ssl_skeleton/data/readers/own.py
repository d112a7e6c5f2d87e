"""People's own recordings: NumPy arrays and long CSV tables, described by an about file (docs/own_data.md).

`.npy`  one clip: (T, V, C), or (M, T, V, C) for M bodies; named as the file, its folder before it: walk/01
`.npz`  the same when it holds the key `x` or one array alone; else each key is a clip of that name
`.csv`  a line a joint of a body in a frame (`table.py`); each name in the column `clip` is a clip

World coordinates have C = 3; those of an image, x and y down, C = 2, or 3 with a confidence. A joint with a
NaN is missing and becomes zero, and so does a joint that a table leaves out. Frame numbers that a table
leaves out, between the first and the last of its clip, are frames in which nobody is seen. The order of
bodies is kept.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.arrays import Array, npz_names, read_npy, read_npz
from ssl_skeleton.data.parsing.table import clip_names, joint_places, read_table
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Outcome
from ssl_skeleton.data.readers.described import (
    Described,
    clip_name,
    needed,
    recordings_in,
    seen_part,
)
from ssl_skeleton.data.readers.labels import shortened
from ssl_skeleton.data.readers.tables import table_clips
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.errors import DamagedClip

_MOST_BYTES = 1 << 31
_MOST_BODIES = 10  # in an array; more are frames or clips, put first by mistake
_CONFIDENCES = (-1.0, 2.5)  # what estimators give, COCO's visibility of 2 among it
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

    def stored(self, x_tvc: NDArray[np.floating]) -> NDArray[np.float32]:
        """As for all that is described; of an image, what is no confidence is refused (z in metres)."""
        stored = super().stored(x_tvc)
        third_tvc = x_tvc[..., 2:3] if self.is_image else x_tvc[..., :0]
        wrong = np.argwhere((third_tvc < _CONFIDENCES[0]) | (third_tvc > _CONFIDENCES[1]))
        if len(wrong):
            frame, joint, _ = wrong[0]
            raise DamagedClip(
                f"frame {frame}, joint {joint}: {third_tvc[frame, joint, 0]:.6g} is no confidence; "
                "for x, y, z say coordinates: world"
            )
        return stored

    def _outcome(self, clip: str, array: Array | DamagedClip) -> Outcome:
        if isinstance(array, DamagedClip):
            return array
        try:
            return self._from_array(clip, array)
        except DamagedClip as error:
            return DamagedClip(f"clip {shortened(clip)!r}: {error}")

    def _from_array(self, clip: str, array: Array) -> Outcome:
        if array.ndim not in (3, 4):
            joints = len(self.facts.layout.joints)
            raise DamagedClip(
                f"shape {array.shape} is neither (frames, joints, coordinates) nor with bodies before, "
                f"here (frames, {joints}, ...)"
            )
        bodies = array[None] if array.ndim == 3 else array
        if len(bodies) > _MOST_BODIES:
            raise DamagedClip(
                f"shape {array.shape} has {len(bodies)} bodies; a clip is (bodies, frames, joints, "
                "coordinates): save one array a clip, or an .npz with a clip a key"
            )
        tracks = [track for x_tvc in bodies for track in seen_part(self.stored(x_tvc))]
        return self.recording(clip, bodies.shape[1], tracks)


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
