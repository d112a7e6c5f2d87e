"""UTD-MHAD (Chen, Jafari and Kehtarnavaz, ICIP 2015): one MATLAB file a clip, Kinect v1.

File names read aX_sX_tX_skeleton: action, subject, trial. In the file, `d_skel` is 20 x 3 x frames in
metres; each clip shows one person, who faces the camera. Joints have an order of their own. Axes are those
of the store: in all clips y is up, the left hip at the smaller x, the feet point to smaller z.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.matlab import read_matrix
from ssl_skeleton.data.parsing.rows import seen_tracks
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Reader
from ssl_skeleton.data.recording import Facts, Recording, check_coordinates
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.data.splits import SplitRule
from ssl_skeleton.errors import DamagedClip
from ssl_skeleton.skeleton.layout import load_layout

_NAME = re.compile(r"(a(\d{1,2})_s(\d)_t(\d))_skeleton", re.ASCII)
_ACTIONS = (
    "right arm swipe to the left",
    "right arm swipe to the right",
    "right hand wave",
    "two hand front clap",
    "right arm throw",
    "cross arms in the chest",
    "basketball shoot",
    "right hand draw x",
    "right hand draw circle (clockwise)",
    "right hand draw circle (counter clockwise)",
    "draw triangle",
    "bowling (right hand)",
    "front boxing",
    "baseball swing from right",
    "tennis right hand forehand swing",
    "arm curl (two arms)",
    "tennis serve",
    "two hand push",
    "right hand knock on door",
    "right hand catch an object",
    "right hand pick up and throw",
    "jogging in place",
    "walking in place",
    "sit to stand",
    "stand to sit",
    "forward lunge (left foot forward)",
    "squat (two arms stretch out)",
)
_LIMBS = [
    f"{side}_{joint}"
    for joints in (("shoulder", "elbow", "wrist", "hand"), ("hip", "knee", "ankle", "foot"))
    for side in ("left", "right")
    for joint in joints
]
_JOINTS = ("head", "shoulder_center", "spine", "hip_center", *_LIMBS)
_ORDER = load_layout("kinect_v1_20").order_from(_JOINTS)
_SPLITS = {
    # As published with the data.
    "cross_subject": SplitRule(column="subject", train=(1, 3, 5, 7), test=(2, 4, 6, 8)),
    "cross_subject_val": SplitRule(column="subject", train=(1, 3, 5), validation=(7,), test=(2, 4, 6, 8)),
    # For choosing hyper-parameters: both parts are training clips of `cross_subject`.
    "cross_subject_dev": SplitRule(column="subject", train=(1, 3, 5), test=(7,)),
}
# Real files have up to 32 kB, 60 kB unpacked.
_MOST_BYTES = 1 << 21
_MOST_UNPACKED = 1 << 23


class UtdMhad(Reader):
    """Reader of UTD-MHAD: 861 clips, 27 classes, 8 subjects, 20 joints."""

    def __init__(self, source: Source, about: About | None = None) -> None:
        entries = source.find("*_skeleton.mat", "the aX_sX_tX_skeleton.mat clips of UTD-MHAD")
        facts = Facts("utd_mhad", load_layout("kinect_v1_20"), 30.0, _ACTIONS, splits=_SPLITS)
        super().__init__(source, facts, entries)

    def read(self, entry: Entry) -> Sequence[Recording]:
        """The one clip of a file; DamagedClip when it cannot be read right."""
        match = _NAME.fullmatch(entry.stem)
        if match is None:
            raise DamagedClip("the file name does not read aX_sX_tX_skeleton")
        action, subject, trial = map(int, match.groups()[1:])
        if not 1 <= action <= len(_ACTIONS):
            raise DamagedClip(f"action {action} is not one of 1 to {len(_ACTIONS)}")
        x_tvc = _coordinates(self.source.read(entry, _MOST_BYTES))
        recording = Recording(
            name=match[1],
            frames=len(x_tvc),
            tracks=seen_tracks([x_tvc]),
            label=action - 1,
            subject=subject,
            repetition=trial,
        )
        return [recording]


def _coordinates(data: bytes) -> NDArray[np.float32]:
    """The coordinates of a file, (T, 20, 3), in the order of the layout."""
    x_vct = read_matrix(data, "d_skel", _MOST_UNPACKED)
    if x_vct.ndim not in (2, 3) or x_vct.shape[:2] != (len(_JOINTS), 3):
        raise DamagedClip(f"'d_skel' has shape {x_vct.shape}, not ({len(_JOINTS)}, 3, frames)")
    x_vct = np.atleast_3d(x_vct)  # MATLAB leaves out a last dimension of 1
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused below
        x_tvc = np.moveaxis(x_vct, 2, 0)[:, list(_ORDER)].astype(np.float32)
    check_coordinates(x_tvc, joints=len(_JOINTS))
    return x_tvc
