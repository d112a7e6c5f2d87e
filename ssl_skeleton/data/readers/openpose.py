"""OpenPose's JSON files (Cao et al., TPAMI 2019), one a frame: `walk_01_000000000012_keypoints.json`.

With --image_dir they are named after the images: `frame0001_keypoints.json`. The frames of one folder are one
clip, named as the folder; of several videos in one folder each is a clip, named folder/video. Of `people`,
`pose_keypoints_2d` is read (`pose_keypoints` in old versions): 75 numbers (BODY_25) or 54 (COCO). A frame
number without a file is a frame in which nobody is seen.

OpenPose's `person_id` is nearly always -1, so people are followed by where they are (`estimates.follow`). The
two who are seen in most frames stay, the one who moves more first.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Outcome
from ssl_skeleton.data.readers.described import Described, check_gaps, needed
from ssl_skeleton.data.readers.estimates import Pose, follow, numbers, parse_json, strongest
from ssl_skeleton.data.readers.labels import shortened
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import Layout, load_layout

_NAME = re.compile(
    r"(?:(.*\D))?(\d{1,15})(?:_rendered)?_keypoints\.json", re.ASCII | re.IGNORECASE | re.DOTALL
)
_NO_NUMBER = "no frame number stands before _keypoints.json"
_KEYS = ("pose_keypoints_2d", "pose_keypoints")
_LAYOUTS = {75: "openpose_25", 54: "openpose_18"}
_MOST_BYTES = 1 << 24
_MOST_LOOKED_AT = 1000  # files opened to find somebody whose joints can be counted
_NOTE = "x and y in pixels unless OpenPose was told to scale them, y up from the top of the image"


class OpenPose(Described):
    """Reader of OpenPose's folders. The entry of a clip is the file of its first frame."""

    def __init__(self, source: Source, about: About | None) -> None:
        about = needed(about, "openpose")
        about.check_is_image("OpenPose's")
        clips, strays = _clips(source)
        self._frames = {files[min(files)]: files for files in clips.values()}
        self._names = {files[min(files)]: clip for clip, files in clips.items()}
        super().__init__(
            source,
            about,
            entries=sorted([*self._frames, *strays]),
            clips=clips,
            layout=about.layout() if about.config.layout else _layout(source, self._frames, about),
            usual="image",
            note=_NOTE,
        )

    def read(self, entry: Entry) -> Sequence[Outcome]:
        """The clip that begins with this frame."""
        if entry not in self._frames:
            raise DamagedClip(_NO_NUMBER)
        files = self._frames[entry]
        first, last = min(files), max(files)
        check_gaps(first, last, len(files))
        people = {frame: self._people(frame, file) for frame, file in sorted(files.items())}
        tracks = strongest(follow(people, self.facts.fps), first)
        return [self.recording(self._names[entry], last - first + 1, tracks)]

    def _people(self, frame: int, file: Entry) -> list[Pose]:
        joints = len(self.facts.layout.joints)
        found = []
        try:
            for values in _people(self.source.read(file, _MOST_BYTES)):
                pose = numbers(values, "keypoints")
                if pose.shape == (0,):
                    continue
                if pose.shape != (3 * joints,):
                    what = f"has {pose.size} numbers, not the {3 * joints} of {self.facts.layout.name}"
                    raise DamagedClip(f"a person {what}")
                found.append(self.stored(pose.reshape(1, joints, 3))[0])
        except DamagedClip as error:
            raise DamagedClip(f"{file.path}: {error}") from None
        return found


def _clips(source: Source) -> tuple[dict[str, dict[int, Entry]], list[Entry]]:
    """The files of every clip by frame number, and those whose names tell no number.

    UserError when there is no clip, or there are two files of one frame.
    """
    videos: dict[tuple[int, str], dict[str, dict[int, Entry]]] = {}
    strays: list[Entry] = []
    for entry in source.find(
        "*_keypoints.json", "the folders of frames that OpenPose writes with --write_json"
    ):
        match = _NAME.fullmatch(entry.name)
        if match is None:
            strays.append(entry)
            continue
        video, frame = (match.group(1) or "").rstrip("_-. "), int(match.group(2))
        files = videos.setdefault((entry.root, entry.folder), {}).setdefault(video, {})
        if frame in files:
            raise UserError(f"{entry.path}: frame {frame} is in {files[frame].path} too; keep one of them")
        files[frame] = entry
    if not videos:
        raise UserError(f"{strays[0].path}: {_NO_NUMBER}")
    return _named(source, videos), strays


def _named(
    source: Source, videos: Mapping[tuple[int, str], Mapping[str, dict[int, Entry]]]
) -> dict[str, dict[int, Entry]]:
    """The clips by name: that of their folder, and of the video where there are several in it."""
    clips: dict[str, dict[int, Entry]] = {}
    for (root, folder), found in videos.items():
        for video, files in found.items():
            parts = (folder, video) if len(found) > 1 or not folder else (folder,)
            name = "/".join(part for part in parts if part) or source.roots[root].stem
            if name in clips:
                raise UserError(f"{source}: two folders hold a clip '{shortened(name)}'; rename one of them")
            clips[name] = files
    return clips


def _people(data: bytes) -> Iterator[Any]:
    """The keypoints of everybody in a frame, as they stand in the file."""
    tree = parse_json(data)
    people = tree.get("people") if isinstance(tree, dict) else None
    if not isinstance(people, list):
        raise DamagedClip("has no list 'people'")
    for person in people:
        key = next((key for key in _KEYS if isinstance(person, dict) and key in person), None)
        if key is None:
            raise DamagedClip(f"a person has no '{_KEYS[0]}'")
        yield person[key]


def _layout(source: Source, clips: Mapping[Entry, Mapping[int, Entry]], about: About) -> Layout:
    """The layout of the first person found."""
    for file in islice((file for files in clips.values() for file in files.values()), _MOST_LOOKED_AT):
        try:
            people = list(_people(source.read(file, _MOST_BYTES)))
        except (DamagedClip, OSError):
            continue  # reading the clip will say so
        for values in people:
            if isinstance(values, list) and len(values) in _LAYOUTS:
                return load_layout(_LAYOUTS[len(values)])
    raise UserError(
        f"{about.path}: layout: nobody was found to count joints; write openpose_25 or openpose_18"
    )
