"""NW-UCLA Multiview Action 3D (Wang et al., CVPR 2014): one JSON file a clip, Kinect v1.

File names read aXX_sXX_eXX_vXX: action, subject, episode, view (camera). In the file, `skeletons` is
frames x 20 x 3 in metres; each clip shows one person.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.rows import seen_tracks
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Reader
from ssl_skeleton.data.readers.estimates import numbers, parse_json
from ssl_skeleton.data.recording import Facts, Recording, check_coordinates
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.data.splits import SplitRule
from ssl_skeleton.errors import DamagedClip
from ssl_skeleton.skeleton.layout import load_layout

_NAME = re.compile(r"a(\d{2})_s(\d{2})_e(\d{2})_v(\d{2})")
_ACTIONS = {
    1: "pick up with one hand",
    2: "pick up with two hands",
    3: "drop trash",
    4: "walk around",
    5: "sit down",
    6: "stand up",
    8: "donning",
    9: "doffing",
    11: "throw",
    12: "carry",
}
_LABELS = {action: label for label, action in enumerate(_ACTIONS)}
_MOST_BYTES = 1 << 25
_SPLITS = {
    "cross_view": SplitRule(column="camera", train=(1, 2), test=(3,)),
    # For choosing hyper-parameters: both parts are training clips of `cross_view`.
    "cross_view_dev": SplitRule(column="camera", train=(1,), test=(2,)),
}


class NwUcla(Reader):
    """Reader of NW-UCLA: 1,484 clips, 10 classes, 10 subjects, 3 cameras, 20 joints."""

    def __init__(self, source: Source, about: About | None = None) -> None:
        entries = source.find("*.json", "the aXX_sXX_eXX_vXX.json clips of NW-UCLA")
        layout = load_layout("kinect_v1_20")
        facts = Facts("nw_ucla", layout, 30.0, tuple(_ACTIONS.values()), splits=_SPLITS)
        super().__init__(source, facts, entries)

    def read(self, entry: Entry) -> Sequence[Recording]:
        """The one clip of a file; DamagedClip when it cannot be read right."""
        name = _NAME.fullmatch(entry.stem)
        if name is None:
            raise DamagedClip("the file name does not read aXX_sXX_eXX_vXX")
        action, subject, episode, view = map(int, name.groups())
        if action not in _LABELS:
            raise DamagedClip(f"action {action} is not one of {', '.join(map(str, _LABELS))}")
        x_tvc = _coordinates(self.source.read(entry, _MOST_BYTES))
        recording = Recording(
            name=entry.stem,
            frames=len(x_tvc),
            tracks=seen_tracks([x_tvc]),
            label=_LABELS[action],
            subject=subject,
            camera=view,
            repetition=episode,
        )
        return [recording]


def _coordinates(data: bytes) -> NDArray[np.float32]:
    tree = parse_json(data)
    if not isinstance(tree, dict) or "skeletons" not in tree:
        raise DamagedClip("has no 'skeletons'")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
        x_tvc = numbers(tree["skeletons"], "frames of 'skeletons'").astype(np.float32)
    if not len(np.atleast_1d(x_tvc)):
        return np.zeros((0, 20, 3), np.float32)
    check_coordinates(x_tvc, joints=20)
    return x_tvc
