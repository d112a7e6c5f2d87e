"""What the readers of people's own recordings share: an about file says what the recordings are."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.readers.about import RECORDED_AXES, About, Axes, Kind
from ssl_skeleton.data.readers.base import Reader
from ssl_skeleton.data.recording import IMAGE, METRES, Facts, Recording, Track, check_coordinates
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import Layout

# What two lonely frames may ask for: beyond it, a frame's number is a slip.
_MOST_GAP = 3000
_MOST_SPREAD = 100


class Described(Reader):
    """A reader of recordings that are as an about file says.

    Args:
        source: where they are.
        about: what they are.
        entries: the files to read.
        clips: the names of all clips in them, as far as they are known.
        layout: their layout.
        usual: which coordinates they have when the about file does not say.
        usual_axes: which axes world coordinates have when it does not say.
        note: what is worth knowing of image coordinates.
    """

    def __init__(
        self,
        source: Source,
        about: About,
        *,
        entries: Sequence[Entry],
        clips: Iterable[str],
        layout: Layout,
        usual: Kind,
        usual_axes: Axes = RECORDED_AXES,
        note: str = "",
    ) -> None:
        config = about.config
        self.about = about
        self.is_image = about.is_image(usual)
        self._axes = usual_axes
        self._labels = about.labels(clips)
        facts = Facts(
            dataset=config.dataset,
            layout=layout,
            fps=float(config.fps),
            classes=self._labels.classes,
            coordinates=IMAGE if self.is_image else METRES,
            splits=config.splits,
            note="; ".join(part for part in (config.note, note if self.is_image else "") if part),
        )
        super().__init__(source, facts, entries)

    def recording(self, clip: str, frames: int, tracks: Sequence[Track]) -> Recording:
        """A clip with what is known of it."""
        return Recording(clip, frames, tracks, **self._labels.of(clip))

    def stored(self, x_tvc: NDArray[np.floating]) -> NDArray[np.float32]:
        """Recorded coordinates (T, V, C) as they are stored; a joint that is missing in a frame is zero.

        World: C = 3; a joint with a NaN is missing. Image: C = 2 or 3, x, y down and a confidence (1 without
        one); a joint with a NaN, with no confidence, or at x = y = 0 is missing. Raises DamagedClip when the
        shape does not fit, or a number is no coordinate.
        """
        joints, wanted = len(self.facts.layout.joints), (2, 3) if self.is_image else (3,)
        if x_tvc.ndim != 3 or x_tvc.shape[1] != joints or x_tvc.shape[2] not in wanted:
            raise DamagedClip(
                f"shape {x_tvc.shape} is not (frames, joints, coordinates), here (frames, {joints}, "
                f"{' or '.join(map(str, wanted))}){self._hint(x_tvc.shape, joints)}"
            )
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            x_tvc = x_tvc.astype(np.float32)
        x_tvc[np.isnan(x_tvc).any(axis=2)] = 0
        x_tvc = to_image(x_tvc) if self.is_image else self.about.to_metres(x_tvc, self._axes)
        check_coordinates(x_tvc, joints, self.facts.coordinates)
        return x_tvc

    def _hint(self, shape: Sequence[int], joints: int) -> str:
        if len(shape) == 3 and tuple(shape[1:]) == (joints, 2):
            return "; for x and y of an image, write 'coordinates: image' in the about file"
        if len(shape) == 3 and shape[1] != joints:
            return f"; the layout {self.facts.layout.name} has {joints} joints"
        return ""


def to_image(x_tvc: NDArray[np.float32]) -> NDArray[np.float32]:
    """x, y down and, if given, confidence, (T, V, 2 or 3), as stored: y up, confidence from 0 to 1.

    A confidence beyond 1 (COCO's visibility of 2, OpenPose's 1.02) becomes 1. A joint without confidence, or
    at x = y = 0, which is how estimators write a joint that they did not find, is all zero.
    """
    ones = np.ones_like(x_tvc[..., :1])
    confidence = np.clip(x_tvc[..., 2:] if x_tvc.shape[-1] == 3 else ones, 0, 1)
    stored: NDArray[np.float32] = np.concatenate([x_tvc[..., :1], 0 - x_tvc[..., 1:2], confidence], axis=-1)
    stored[(stored[..., 2] == 0) | ~stored[..., :2].any(axis=-1)] = 0
    return stored


def seen_part(x_tvc: NDArray[np.float32], first_frame: int = 0) -> list[Track]:
    """The track of one body (T, V, C), from the first to the last frame in which it is seen."""
    seen = np.flatnonzero(x_tvc.any(axis=(1, 2)))
    if not len(seen):
        return []
    return [Track(first_frame + int(seen[0]), x_tvc[seen[0] : seen[-1] + 1])]


def check_gaps(first: int, last: int, seen: int) -> None:
    """Raise DamagedClip when so few frames are seen that the numbers of the first or last must be a slip."""
    if last - first + 1 > _MOST_GAP + _MOST_SPREAD * seen:
        raise DamagedClip(f"only {seen} frames from number {first} to {last}; one of these must be a slip")


def needed(about: About | None, name: str) -> About:
    """The about file, which this format cannot do without."""
    if about is None:
        raise UserError(f"{name}: needs --about FILE, which says what the recordings are (docs/own_data.md)")
    return about


def clip_name(entry: Entry) -> str:
    """The name of the clip that a file is: its path in the source, without the ending."""
    return f"{entry.folder}/{entry.stem}".removeprefix("/")


def recordings_in(source: Source, about: About, *endings: str) -> list[Entry]:
    """The files with these endings, sorted by path, but for the labels file, which may lie among them."""
    labels = about.labels_file.name if about.labels_file else None
    found = [entry for ending in endings for entry in source.matching(f"*{ending}") if entry.name != labels]
    if not found:
        wanted = ", ".join(f"*{ending}" for ending in endings)
        raise UserError(f"{source}: holds no {wanted}; --source names the folder or zip with the recordings")
    return sorted(found)
