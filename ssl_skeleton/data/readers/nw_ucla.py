"""NW-UCLA Multiview Action 3D (Wang et al., CVPR 2014): one JSON file a clip, Kinect v1.

File names read aXX_sXX_eXX_vXX: action, subject, episode, view (camera). In the file, `skeletons` is
frames x 20 x 3 in metres; each clip shows one person.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssl_skeleton.data.readers.base import (
    DamagedClip,
    Reader,
    Recording,
    Track,
    check_coordinates,
    find_files,
)

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


class NwUcla(Reader):
    """Reader of NW-UCLA: 1,484 clips, 10 classes, 10 subjects, 3 cameras, 20 joints."""

    dataset = "nw_ucla"
    layout = "kinect_v1_20"
    fps = 30.0
    classes = tuple(_ACTIONS.values())

    def files(self, source: Path) -> Sequence[Path]:
        """The JSON files below `source`."""
        return find_files(source, "*.json", "the aXX_sXX_eXX_vXX.json clips of NW-UCLA")

    def read(self, path: Path) -> Sequence[Recording]:
        """The one clip of a file; DamagedClip when it cannot be read right."""
        name = _NAME.fullmatch(path.stem)
        if name is None:
            raise DamagedClip("the file name does not read aXX_sXX_eXX_vXX")
        action, subject, episode, view = map(int, name.groups())
        if action not in _LABELS:
            raise DamagedClip(f"action {action} is not one of {', '.join(map(str, _LABELS))}")
        x_tvc = _coordinates(path)
        recording = Recording(
            name=path.stem,
            frames=len(x_tvc),
            tracks=[Track(0, x_tvc)] if x_tvc.any() else [],
            label=_LABELS[action],
            subject=subject,
            camera=view,
            repetition=episode,
        )
        return [recording]


def _coordinates(path: Path) -> np.ndarray:
    try:
        tree = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DamagedClip(f"not valid JSON ({error})") from None
    if not isinstance(tree, dict) or "skeletons" not in tree:
        raise DamagedClip("has no 'skeletons'")
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
            x_tvc = np.asarray(tree["skeletons"], dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        raise DamagedClip("'skeletons' is not an array of frames x 20 x 3 numbers") from None
    if not len(np.atleast_1d(x_tvc)):
        return np.zeros((0, 20, 3), np.float32)
    check_coordinates(x_tvc, joints=20)
    return x_tvc
