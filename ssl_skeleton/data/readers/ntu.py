"""NTU RGB+D 60 and 120 (Shahroudy et al., CVPR 2016; Liu et al., TPAMI 2020): `.skeleton` text, Kinect v2.

File names read SsssCcccPpppRrrrAaaa: setup, camera, performer, repetition, action. Lines: the number of
frames; in each frame the number of bodies; for each body its id and nine states, the number of joints,
and a line a joint: x y z in metres, eight more numbers that are not used, the tracking state.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ssl_skeleton.data.bodies import persons
from ssl_skeleton.data.parsing.ntu import JOINTS, MAX_BYTES, Body, parse_bodies
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Reader
from ssl_skeleton.data.recording import Facts, Recording, Track
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.data.splits import SplitRule, one_against_the_rest
from ssl_skeleton.errors import DamagedClip
from ssl_skeleton.skeleton.layout import load_layout

_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)
_MAX_TRACKS = 2
_PERFORMERS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
_PERFORMERS_120 = (
    *_PERFORMERS,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80),
    *(81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
)
NTU60_SPLITS = {
    "xsub": one_against_the_rest("subject", _PERFORMERS, largest=40),
    "xview": SplitRule(column="camera", train=(2, 3), test=(1,)),
}
NTU120_SPLITS = {
    "xsub": one_against_the_rest("subject", _PERFORMERS_120, largest=106),
    "xset": one_against_the_rest("setup", tuple(range(2, 33, 2)), largest=32),
}


class Ntu(Reader):
    """Reader of `.skeleton` files, one clip each, 25 joints, for any data set recorded that way.

    A body is a track from the first to the last frame in which its id is seen; a body with all joints at
    exactly zero is not seen. When there is more than one body, phantoms are left out (see `persons`), and
    of the others the two that move most are kept, the one that moves more first. Frames before the first
    and after the last one in which a kept body is seen are cut off; `Recording.frames` counts the rest.
    """

    def __init__(
        self,
        dataset: str,
        classes: Sequence[str],
        splits: Mapping[str, SplitRule],
        source: Source,
        about: About | None = None,
    ) -> None:
        entries = source.find("*.skeleton", "the SsssCcccPpppRrrrAaaa.skeleton files")
        facts = Facts(dataset, load_layout("kinect_v2_25"), 30.0, tuple(classes), splits=splits)
        super().__init__(source, facts, entries)

    def read(self, entry: Entry) -> Sequence[Recording]:
        """The one clip of a file; DamagedClip when it cannot be read right."""
        name = _NAME.fullmatch(entry.stem)
        if name is None:
            raise DamagedClip("the file name does not read SsssCcccPpppRrrrAaaa")
        setup, camera, performer, repetition, action = map(int, name.groups())
        if not 1 <= action <= len(self.facts.classes):
            raise DamagedClip(
                f"action {action} is not one of the {len(self.facts.classes)} of {self.facts.dataset}"
                + ("; it belongs to ntu120" if self.facts.dataset == "ntu60" and 60 < action <= 120 else "")
            )
        frames, tracks = _tracks(parse_bodies(self.source.read(entry, MAX_BYTES)))
        recording = Recording(
            name=entry.stem,
            frames=frames,
            tracks=tracks,
            label=action - 1,
            subject=performer,
            camera=camera,
            setup=setup,
            repetition=repetition,
        )
        return [recording]


def _tracks(bodies: Sequence[Body]) -> tuple[int, list[Track]]:
    """The length of the clip from the first to the last frame in which a kept body is seen; its tracks."""
    kept = [bodies[number] for number in persons([body.x_tvc for body in bodies])[:_MAX_TRACKS]]
    if not kept:
        return 0, []
    first = int(min(body.frames[0] for body in kept))
    last = int(max(body.frames[-1] for body in kept))
    tracks = []
    for body in kept:
        start, x_tvc = int(body.frames[0]), body.x_tvc
        span = int(body.frames[-1]) - start + 1
        if span > len(x_tvc):  # it was out of sight in between
            x_tvc = np.zeros((span, JOINTS, 3), np.float32)
            x_tvc[body.frames - start] = body.x_tvc
        tracks.append(Track(start - first, x_tvc))
    return last - first + 1, tracks
