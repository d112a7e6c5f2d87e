"""What the files of pose estimators share: JSON, numbers in it, and people who are followed over frames."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.readers.described import check_room, seen_part
from ssl_skeleton.data.readers.labels import shortened
from ssl_skeleton.data.recording import Track
from ssl_skeleton.errors import DamagedClip

MOST_NUMBER = 10**15
_FRAME_KEYS = ("frame", "frame_id", "image_id")
_KEPT = 2  # bodies of a clip
_MOST_PEOPLE = 100  # in one frame
_MOST_RECENT = 200  # who may be out of sight at once
_REACH = 0.1  # of the picture that somebody of no known size may cross from one sight to the next
_PATIENCE = 1.0  # seconds for which somebody may be out of sight and is still known again

_ENDING = re.compile(r"\.[A-Za-z]\w*$", re.ASCII)  # of a file: .jpg, .mp4

Pose = NDArray[np.float32]
Body = dict[int, Pose]  # frame number -> (V, C)


class Place(NamedTuple):
    """Where somebody is: the mean position of the joints found, and the diagonal of the box around them."""

    mean: NDArray[np.float64]
    size: float


def parse_json(data: bytes) -> Any:
    """The tree in a JSON file; DamagedClip when it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedClip(f"not valid JSON ({error})") from None


def numbers(value: Any, what: str) -> NDArray[np.float64]:
    """Nested lists of numbers as an array; DamagedClip when they are anything else."""
    try:
        array = np.asarray(value)
        if array.dtype.kind in "if":  # true and texts are no numbers
            return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    raise DamagedClip(f"{what} are not a list of numbers")


def frame_name(item: Mapping[str, Any], place: int) -> str:
    """What a frame is called where it is given: two frames with different names are not one."""
    value = next((item[key] for key in _FRAME_KEYS if key in item), place)
    return shortened(str(value)) if type(value) in (int, str) else str(place)


def frame_number(item: dict[str, Any], place: int | None) -> int:
    """The number of a frame: as it is given, else its place in the list."""
    value: Any = next((item[key] for key in _FRAME_KEYS if key in item), place)
    if isinstance(value, str):
        stem = _ENDING.sub("", re.split(r"[/\\]", value)[-1])
        digits = re.findall(r"\d{1,15}", stem, re.ASCII)
        value = int(digits[-1]) if digits else None
    if type(value) is not int or abs(value) >= MOST_NUMBER:
        raise DamagedClip(f"a frame has no number; it stands in one of {', '.join(_FRAME_KEYS)}")
    return value


def follow(people: Mapping[int, Sequence[Pose]], fps: float) -> list[Body]:
    """Follow people over frames by where they are.

    The mean position of the joints that are found is compared with that of everybody who was seen within the
    last second; the nearest two belong together first, if they are no further apart than the person is
    large. Who shows one joint alone is as large as a tenth of all that is seen.

    Args:
        people: of each frame the people in it, (V, 3): x, y, confidence, zero where a joint is missing.
        fps: frames per second.
    """
    bodies: list[Body] = []
    reach = _REACH * _extent(people)
    recent: dict[int, tuple[int, Place]] = {}  # of the bodies seen lately: the last frame, and where
    for frame in sorted(people):
        if len(people[frame]) > _MOST_PEOPLE:
            raise DamagedClip(f"frame {frame}: {len(people[frame])} people are more than {_MOST_PEOPLE}")
        poses = [pose for pose in people[frame] if pose.any()]
        places = [_place(pose, reach) for pose in poses]
        recent = {body: last for body, last in recent.items() if frame - last[0] <= _PATIENCE * fps}
        if len(recent) > _MOST_RECENT:  # with thousands of frames a second, or of people
            latest = sorted(recent, key=lambda body: recent[body][0])[-_MOST_RECENT:]
            recent = {body: recent[body] for body in latest}
        owner = _matches(places, {body: place for body, (_, place) in recent.items()})
        for number, (pose, place) in enumerate(zip(poses, places, strict=True)):
            body = owner.get(number, len(bodies))
            if body == len(bodies):
                bodies.append({})
            bodies[body][frame] = pose
            recent[body] = (frame, place)
    return bodies


def _matches(places: Sequence[Place], bodies: Mapping[int, Place]) -> dict[int, int]:
    """Which body is at each of the places: the nearest pairs first, a body at one place at most."""
    owner: dict[int, int] = {}
    if not places or not bodies:
        return owner
    numbers = list(bodies)
    here = np.array([place.mean for place in places])[:, None]
    distance = np.hypot(*np.moveaxis(here - np.array([bodies[body].mean for body in numbers]), -1, 0))
    size_here = np.array([place.size for place in places])[:, None]
    near = np.argwhere(distance <= np.maximum(size_here, [bodies[body].size for body in numbers]))
    for number, column in near[np.argsort(distance[tuple(near.T)], kind="stable")].tolist():
        if number not in owner and numbers[column] not in owner.values():
            owner[number] = numbers[column]
    return owner


def _place(pose_vc: Pose, reach: float) -> Place:
    found = pose_vc[pose_vc.any(axis=1), :2].astype(np.float64)
    return Place(found.mean(axis=0), float(np.hypot(*np.ptp(found, axis=0))) or reach)


def _extent(people: Mapping[int, Sequence[Pose]]) -> float:
    """The diagonal of the box around all that is seen."""
    found = [pose[pose.any(axis=1), :2] for poses in people.values() for pose in poses if pose.any()]
    return float(np.hypot(*np.ptp(np.concatenate(found).astype(np.float64), axis=0))) if found else 0.0


def strongest(bodies: Sequence[Body], first_frame: int) -> list[Track]:
    """The two bodies that are seen in most frames, the one that moves more first, as tracks of a clip."""
    longest = sorted(bodies, key=len, reverse=True)[:_KEPT]
    tracks = []
    for body in longest:
        start, end = min(body), max(body)
        joints = len(body[start])
        check_room((end - start + 1) * joints, len(body) * joints)
        x_tvc = np.zeros((end - start + 1, *body[start].shape), np.float32)
        x_tvc[np.array(list(body)) - start] = np.stack(list(body.values()))
        tracks += seen_part(x_tvc, start - first_frame)
    return sorted(tracks, key=lambda track: _movement(track.x_tvc), reverse=True)


def _movement(x_tvc: NDArray[np.float32]) -> float:
    """The mean way that a joint goes from one frame to the next, of those found in both."""
    found = np.abs(x_tvc).max(axis=2) > 0
    both = found[1:] & found[:-1]
    way = np.linalg.norm(np.diff(x_tvc[..., :2].astype(np.float64), axis=0), axis=2)
    return float(way[both].mean()) if both.any() else 0.0
