"""COCO's 17 keypoints, as pose estimators write them: one JSON file a clip, named as the file.

Detections are objects with `keypoints`: 51 numbers (x, y, confidence in turn), 17 lists of two or three, or
{"x": [...], "y": [...], "visible": [...]}; `keypoint_scores` gives confidences apart. They stand
- in a list, each with its frame: `frame`, `frame_id` or `image_id`, a number or a file name that ends in one
  (AlphaPose, detectron2, COCO's results), or below the key `annotations`;
- or in frames: a list, or the list below `instance_info` or `frames`, of lists of detections or of
  {"frame_id": 0, "instances": [...]} (MMPose, Ultralytics); a frame without a number has its place there.

Who has a number (`track_id`, or AlphaPose's `idx`) in every detection of the file is followed by it, else by
position (`estimates.follow`). The two who are seen in most frames stay, the one who moves more first.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Outcome
from ssl_skeleton.data.readers.described import Described, check_gaps, clip_name, needed, recordings_in
from ssl_skeleton.data.readers.estimates import (
    MOST_NUMBER,
    Body,
    Pose,
    follow,
    frame_name,
    frame_number,
    numbers,
    parse_json,
    strongest,
)
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.errors import DamagedClip

_TRACK_KEYS = ("track_id", "idx")
_LIST_KEYS = ("annotations", "instance_info", "frames")
_SCORES = "keypoint_scores"
_SCORE_KEYS = (_SCORES, "visible", "confidence")  # beside x and y
_MOST_BYTES = 1 << 28
_NOTE = "x and y in the units of the files (mostly pixels), y up from the top of the image"


class Coco17(Described):
    """Reader of JSON files with COCO keypoints."""

    def __init__(self, source: Source, about: About | None) -> None:
        about = needed(about, "coco_17")
        about.check_is_image("COCO's")
        entries = recordings_in(source, about, ".json")
        super().__init__(
            source,
            about,
            entries=entries,
            clips=map(clip_name, entries),
            layout=about.layout("coco_17"),
            usual="image",
            note=_NOTE,
        )

    def read(self, entry: Entry) -> Sequence[Outcome]:
        """The one clip of a file."""
        people: dict[int, list[Pose]] = {}
        known: dict[int, Body] = {}
        everybody_known = True
        for frame, detection in _detections(parse_json(self.source.read(entry, _MOST_BYTES))):
            here = people.setdefault(frame, [])
            if detection is None:
                continue
            try:
                here.append(self._pose(detection))
            except DamagedClip as error:
                raise DamagedClip(f"frame {frame}: {error}") from None
            track = _track(detection)
            everybody_known &= track is not None and known.setdefault(track, {}).get(frame) is None
            if track is not None:
                known[track][frame] = here[-1]
        if not people:
            return [self.recording(clip_name(entry), 0, [])]
        first, last = min(people), max(people)
        check_gaps(first, last, len(people))
        bodies = list(known.values()) if everybody_known else follow(people, self.facts.fps)
        return [self.recording(clip_name(entry), last - first + 1, strongest(bodies, first))]

    def _pose(self, detection: dict[str, Any]) -> Pose:
        joints = len(self.facts.layout.joints)
        values = detection["keypoints"]
        scores: Any = detection.get(_SCORES)
        if isinstance(values, dict):
            scores = next((values[key] for key in _SCORE_KEYS if key in values), scores)
            columns = [numbers(values.get(key), f"keypoints '{key}'") for key in ("x", "y")]
            if columns[0].shape != columns[1].shape:
                raise DamagedClip("keypoints have more of 'x' or of 'y'")
            pose = np.stack(columns, axis=-1)
        else:
            pose = numbers(values, "keypoints")
        if scores is not None and pose.ndim == 2 and pose.shape[1] == 3:
            raise DamagedClip("keypoints are x, y, z with confidences apart; COCO's are x and y in an image")
        if pose.shape == (3 * joints,):
            pose = pose.reshape(joints, 3)
        if scores is not None and pose.shape == (joints, 2):
            score = numbers(scores, "confidences of keypoints").reshape(-1)
            if score.shape != (joints,):
                raise DamagedClip(f"{score.size} confidences of keypoints, not {joints}")
            pose = np.concatenate([pose, score[:, None]], axis=1)
        if pose.shape not in ((joints, 2), (joints, 3)):
            raise DamagedClip(f"keypoints of shape {pose.shape}, not {joints} of x, y, confidence")
        stored: Pose = self.stored(pose[None])[0]
        return stored


def _detections(tree: Any) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """All detections with their frames; None for a frame that is there and shows nobody."""
    if isinstance(tree, dict):
        key = next((key for key in _LIST_KEYS if key in tree), None)
        tree = tree[key] if key else tree
    names: dict[int, str] = {}
    if not isinstance(tree, list):
        raise DamagedClip("is neither a list of detections nor of frames (docs/own_data.md)")
    for place, item in enumerate(tree):
        if isinstance(item, dict) and "keypoints" in item:
            frame = frame_number(item, None)
            _check_name(names, frame, frame_name(item, place))
            yield frame, item
            continue
        frame = frame_number(item, place) if isinstance(item, dict) else place
        _check_name(names, frame, f"item {place}")
        below = item.get("instances") if isinstance(item, dict) else item
        if not isinstance(below, list):
            raise DamagedClip(f"item {place} has neither 'keypoints' nor a list of 'instances'")
        yield frame, None
        for detection in below:
            if not isinstance(detection, dict) or "keypoints" not in detection:
                raise DamagedClip(f"item {place}: a detection has no 'keypoints'")
            yield frame, detection


def _check_name(names: dict[int, str], frame: int, name: str) -> None:
    """Raise DamagedClip when another name stands for the same frame."""
    if names.setdefault(frame, name) != name:
        raise DamagedClip(f"frame {frame} is given twice, as '{names[frame]}' and as '{name}'")


def _track(detection: dict[str, Any]) -> int | None:
    """The number of the person, if it has one."""
    value: Any = next((detection[key] for key in _TRACK_KEYS if key in detection), None)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    is_number = type(value) in (int, float) and abs(value) < MOST_NUMBER
    return int(value) if is_number and value == int(value) else None
