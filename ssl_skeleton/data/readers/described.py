"""What the readers of people's own recordings share: an about file says what the recordings are."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.readers.about import RECORDED_AXES, About, Axes, Kind
from ssl_skeleton.data.readers.base import Reader
from ssl_skeleton.data.readers.labels import MOST_LETTERS, shortened
from ssl_skeleton.data.recording import IMAGE, METRES, Facts, Recording, Track, check_coordinates
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import Layout

# What two lonely frames may ask for: beyond it, a frame's number is a slip.
_MOST_GAP = 3000
# How many joints may be kept as zeros: so many, and so many for each that is given.
_MOST_EMPTY = 1_000_000
_MOST_SPREAD = 5
# Metres that a body takes, in the direction in which it takes most. Units are easily mistaken: what lies
# beyond is refused rather than stored a hundred times too large.
_SPAN = (0.4, 3.0)
_MOST_LABELS = 1 << 27


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
        """A clip with what is known of it; DamagedClip when its name is no name."""
        if len(clip) > MOST_LETTERS:
            raise DamagedClip(
                f"clip {shortened(clip)!r}: a name of {len(clip)} letters is longer than {MOST_LETTERS}"
            )
        return Recording(clip, frames, tracks, **self._labels.of(clip))

    def stored(self, x_tvc: NDArray[np.floating]) -> NDArray[np.float32]:
        """Recorded coordinates (T, V, C) as they are stored; a joint that is missing in a frame is zero.

        World: C = 3; a joint with a NaN is missing. Image: C = 2 or 3, x, y down and a confidence (1 without
        one); a joint with a NaN, with no confidence, or at x = y = 0 is missing. Raises DamagedClip when the
        shape does not fit, a number is no coordinate, or a body has no plausible size in metres, unless the
        about file says what the unit is.
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
        if not self.is_image and "unit" not in self.about.config.model_fields_set:
            check_span(x_tvc)
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
    """Raise DamagedClip when so few frames are there that the number of the first or last must be a slip."""
    if last - first + 1 > _MOST_GAP + _MOST_SPREAD * seen:
        raise DamagedClip(f"only {seen} frames from number {first} to {last}; one of these must be a slip")


def check_room(places: int, given: int) -> None:
    """Raise DamagedClip when the frames times joints to be kept are far more than the joints given.

    A few bytes can name frames far apart, and what lies between them takes memory.
    """
    if places > _MOST_EMPTY + _MOST_SPREAD * given:
        raise DamagedClip("its frames are mostly gaps, in which nobody is seen; cut these into clips")


def check_span(x_tvc: NDArray[np.float32]) -> None:
    """Raise DamagedClip unless a body (T, V, 3) has a plausible size in metres; for units that nobody said.

    Missing joints are zero; frames with less than half of the joints say nothing. The largest frame must not
    be too small, nor the usual frame too large: some frames of a good recording are wrong.
    """
    found_tv = np.abs(x_tvc).max(axis=2) > 0
    whole_t = 2 * found_tv.sum(axis=1) >= found_tv.shape[1]
    x_tvc, found_tvc = x_tvc[whole_t], found_tv[whole_t][..., None]
    if not x_tvc.size or not found_tvc.any():
        return
    most_tc = np.where(found_tvc, x_tvc, -np.inf).max(axis=1)
    least_tc = np.where(found_tvc, x_tvc, np.inf).min(axis=1)
    span_t = (most_tc - least_tc).max(axis=1)
    if span_t.max() < _SPAN[0] or np.median(span_t) > _SPAN[1]:
        raise DamagedClip(
            f"the body would take {np.median(span_t):.3g} m; say in an about file how many metres a unit "
            "has, such as unit: 0.01 for centimetres or 0.001 for millimetres (unit: 1 if this is right)"
        )


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
    named = [entry for ending in endings for entry in source.matching(f"*{ending}")]
    found = [entry for entry in named if not _is_labels_file(source, about, entry)]
    if not found:
        wanted = ", ".join(f"*{ending}" for ending in endings)
        raise UserError(f"{source}: holds no {wanted}; --source names the folder or zip with the recordings")
    return sorted(found)


def _is_labels_file(source: Source, about: About, entry: Entry) -> bool:
    """Whether this is the labels file: in a zip, or where the folder was copied, only its bytes tell."""
    labels = about.labels_file
    if labels is None or labels.name != entry.name:
        return False
    try:
        return source.read(entry, _MOST_LABELS) == labels.read_bytes()
    except (DamagedClip, OSError, ValueError):
        return False
