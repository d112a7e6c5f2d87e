"""MediaPipe Pose (Bazarevsky et al., 2020): 33 landmarks of one person, a JSON or CSV file a clip.

A JSON file holds a list of frames, or {"frames": [...]}. A frame is a list of 33 landmarks, each
{"x": ..., "y": ..., "z": ..., "visibility": ...} or [x, y, z, visibility]; or such a list below `landmarks`,
`pose_landmarks` or `pose_world_landmarks` (`poseLandmarks`, `worldLandmarks`, ...), which may stand in a
mapping of its own, {"landmark": [...]}; or null or [] where nobody was found. A CSV file has the columns
frame, landmark (a name or a number), x, y, z, visibility (`table.py`); a column clip makes many clips of it.

MediaPipe gives every pose twice. `coordinates: image`, the usual one, stores the landmarks of the image: x
and y as shares of its width and height, the visibility as confidence. `coordinates: world` stores the world
landmarks: metres from the middle of the hips, turned by 180 degrees about z so that y is up. One cannot pass
for the other, for the hips tell them apart.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.table import clip_names, joint_places, read_table
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Outcome
from ssl_skeleton.data.readers.described import (
    Described,
    check_gaps,
    check_room,
    clip_name,
    needed,
    recordings_in,
    seen_part,
)
from ssl_skeleton.data.readers.estimates import frame_number, numbers, parse_json
from ssl_skeleton.data.readers.labels import shortened
from ssl_skeleton.data.readers.tables import table_clips
from ssl_skeleton.data.recording import Recording
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.errors import DamagedClip

_LANDMARKS = 33
_NEAR = 0.1  # where the middle of the hips lies in world landmarks, and hardly ever in an image
_LIST = "landmark"  # around the landmarks of a message turned into a mapping
# As the versions for Python and for JavaScript call them.
_IMAGE_KEYS = ("pose_landmarks", "poseLandmarks", "landmarks", _LIST)
_WORLD_KEYS = (
    *("pose_world_landmarks", "poseWorldLandmarks", "world_landmarks", "worldLandmarks"),
    *("landmarks", _LIST),
)
_AXES = ("-x", "-y", "z")
_MOST_BYTES = 1 << 28
_NOTE = "x and y as shares of the image's width and height, y up from the top of the image"


class MediaPipe(Described):
    """Reader of .json and .csv files of MediaPipe's landmarks."""

    def __init__(self, source: Source, about: About | None) -> None:
        about = needed(about, "mediapipe")
        entries = recordings_in(source, about, ".json", ".csv")
        clips: list[str] = []
        if about.config.labels or about.config.names:
            clips = [clip for entry in entries for clip in _clips_in(source, entry)]
        super().__init__(
            source,
            about,
            entries=entries,
            clips=clips,
            layout=about.layout("mediapipe_33"),
            usual="image",
            usual_axes=_AXES,
            note=_NOTE,
        )

    def read(self, entry: Entry) -> Sequence[Outcome]:
        """The clips of a file; DamagedClip when it cannot be read right as a whole."""
        data = self.source.read(entry, _MOST_BYTES)
        if _is_json(entry):
            return [self._checked(self._from_json(clip_name(entry), data))]
        table = read_table(data, _places(self.facts.layout.joints), image=self.is_image)
        return [self._checked(outcome) for outcome in table_clips(self, table, clip_name(entry))]

    def _from_json(self, clip: str, data: bytes) -> Recording:
        poses: dict[int, NDArray[np.float64]] = {}
        frames: set[int] = set()
        for frame, landmarks in self._frames(parse_json(data)):
            if frame in frames:
                raise DamagedClip(f"frame {frame} is given twice")
            frames.add(frame)
            if landmarks:
                values = [self._values(landmark) for landmark in landmarks]
                poses[frame] = numbers(values, f"frame {frame}: landmarks")
            if len(landmarks) not in (0, _LANDMARKS):
                raise DamagedClip(f"frame {frame}: {len(landmarks)} landmarks, not {_LANDMARKS}")
        if not poses:
            return self.recording(clip, len(frames), [])
        first, last = min(frames), max(frames)
        check_gaps(first, last, len(frames))
        start, end = min(poses), max(poses)
        check_room((end - start + 1) * _LANDMARKS, len(poses) * _LANDMARKS)
        x_tvc = np.zeros((end - start + 1, _LANDMARKS, 3))
        x_tvc[np.array(list(poses)) - start] = np.stack(list(poses.values()))
        return self.recording(clip, last - first + 1, seen_part(self.stored(x_tvc), start - first))

    def _frames(self, tree: Any) -> Iterator[tuple[int, list[Any]]]:
        """The number and the landmarks of each frame; none where nobody was found."""
        frames = tree.get("frames") if isinstance(tree, dict) else tree
        if not isinstance(frames, list):
            raise DamagedClip("is neither a list of frames nor {'frames': [...]}")
        for place, frame in enumerate(frames):
            number, landmarks = place, frame
            if isinstance(frame, dict):
                number = frame_number(frame, place)
                keys = [key for key in (_IMAGE_KEYS if self.is_image else _WORLD_KEYS) if key in frame]
                if not keys:
                    wanted = _IMAGE_KEYS[0] if self.is_image else _WORLD_KEYS[0]
                    raise DamagedClip(f"frame {number} has no '{wanted}'")
                landmarks = frame[keys[0]]
                if isinstance(landmarks, dict):
                    landmarks = landmarks.get(_LIST, landmarks or None)  # {}: nobody
            landmarks = [] if landmarks is None else landmarks
            if not isinstance(landmarks, list):
                raise DamagedClip(f"frame {number} is no list of landmarks")
            if _is_people(landmarks):
                if len(landmarks) > 1:
                    raise DamagedClip(f"frame {number} shows {len(landmarks)} people; write a file for each")
                landmarks = landmarks[0]
            yield number, landmarks

    def _values(self, landmark: Any) -> list[Any]:
        """x, y and confidence of a landmark of an image, x, y and z of one of the world."""
        if isinstance(landmark, dict):
            third = landmark.get("visibility", 1.0) if self.is_image else landmark.get("z")
            return [landmark.get("x"), landmark.get("y"), third]
        if not isinstance(landmark, list) or len(landmark) < (2 if self.is_image else 3):
            raise DamagedClip("a landmark is neither {'x': ..., 'y': ..., 'z': ...} nor a list of these")
        third = (landmark[3:4] or [1.0]) if self.is_image else landmark[2:3]
        return [*landmark[:2], *third]

    def _checked(self, outcome: Outcome) -> Outcome:
        """The clip, unless its landmarks are of the other kind."""
        if isinstance(outcome, DamagedClip) or not outcome.tracks:
            return outcome
        x_tvc = outcome.tracks[0].x_tvc
        hips_tvc = x_tvc[:, self.facts.layout.indices(("left_hip", "right_hip"))]
        hips_tc = hips_tvc[hips_tvc.any(axis=(1, 2)), :, :2].mean(axis=1)
        is_world = len(hips_tc) > 0 and float(np.median(np.abs(hips_tc).max(axis=1))) < _NEAR
        if is_world != self.is_image:
            return outcome
        kinds = ("world", "image") if is_world else ("image", "world")
        why = "lies at the origin" if is_world else "is not at the origin"
        return DamagedClip(
            f"clip {shortened(outcome.name)!r}: these are {kinds[0]} landmarks, for the middle of the hips "
            f"{why}; write 'coordinates: {kinds[0]}' in the about file, not {kinds[1]}"
        )


def _is_people(landmarks: list[Any]) -> bool:
    """Whether these are people, each a list of landmarks, rather than landmarks."""
    first = landmarks[0] if landmarks else None
    return isinstance(first, list) and bool(first) and isinstance(first[0], list | dict)


def _places(joints: Sequence[str]) -> dict[str, int]:
    """Where landmarks stand by their names here and in MediaPipe, which says mouth_left."""
    places = joint_places(joints)
    return places | {f"mouth_{side}": places[f"{side}_mouth"] for side in ("left", "right")}


def _clips_in(source: Source, entry: Entry) -> list[str]:
    """The names of the clips in a file; of a damaged one its own, for reading it will say what is wrong."""
    names: list[str] = []
    if not _is_json(entry):
        with suppress(DamagedClip, OSError):
            names = clip_names(source.read(entry, _MOST_BYTES))
    return [name or clip_name(entry) for name in names or [""]]


def _is_json(entry: Entry) -> bool:
    return entry.name.lower().endswith(".json")
