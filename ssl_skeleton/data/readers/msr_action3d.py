"""MSR-Action3D (Li, Zhang, Liu, CVPR Workshops 2010): one text file a clip, 20 joints.

File names read aXX_sXX_eXX_skeleton3D.txt: action, subject, episode. A frame is 20 lines, `x y z confidence`
in metres, in an order of joints of its own. Which of two joints is the left one is not verified; in actions 1
to 9, done with the right arm, the right elbow should move more. The three action sets and the parts by
subject are those of the publication.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.rows import number_rows, seen_tracks, text_lines
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Reader
from ssl_skeleton.data.recording import Facts, Recording
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.data.splits import ODD_SUBJECTS_TRAIN
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import Layout, load_layout

_NAME = re.compile(r"a(\d{2})_s(\d{2})_e(\d{2})_skeleton3d", re.ASCII | re.IGNORECASE)
_ACTIONS = (
    "high arm wave",
    "horizontal arm wave",
    "hammer",
    "hand catch",
    "forward punch",
    "high throw",
    "draw x",
    "draw tick",
    "draw circle",
    "hand clap",
    "two hand wave",
    "side boxing",
    "bend",
    "forward kick",
    "side kick",
    "jogging",
    "tennis swing",
    "tennis serve",
    "golf swing",
    "pick up and throw",
)
ALL_ACTIONS = tuple(range(1, len(_ACTIONS) + 1))
AS1 = (2, 3, 5, 6, 10, 13, 18, 20)
AS2 = (1, 4, 7, 8, 9, 11, 12, 14)
AS3 = (6, 14, 15, 16, 17, 18, 19, 20)
_FILE_ORDER = (
    "left_shoulder",
    "right_shoulder",
    "shoulder_center",
    "spine",
    "left_hip",
    "right_hip",
    "hip_center",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hand",
    "right_hand",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
    "left_foot",
    "right_foot",
    "head",
)
_MOST_BYTES = 1 << 22


class MsrAction3d(Reader):
    """Reader of MSR-Action3D: 567 clips, 20 classes, 10 subjects, or the clips of some `actions`.

    Frames whose joints are all zero count as not seen; the confidence is not kept.
    """

    def __init__(
        self, dataset: str, actions: Sequence[int], source: Source, about: About | None = None
    ) -> None:
        found = source.find("*_skeleton3D.txt", "the aXX_sXX_eXX_skeleton3D.txt clips of MSR-Action3D")
        self._labels = {action: label for label, action in enumerate(actions)}
        entries = [entry for entry in found if _action(entry) not in set(ALL_ACTIONS) - set(actions)]
        if not entries:
            raise UserError(f"{source}: holds no clip of the actions {', '.join(map(str, actions))}")
        classes = tuple(_ACTIONS[action - 1] for action in actions)
        facts = Facts(dataset, load_layout("kinect_v1_20"), 15.0, classes, splits=ODD_SUBJECTS_TRAIN)
        super().__init__(source, facts, entries)

    def read(self, entry: Entry) -> Sequence[Recording]:
        """The one clip of a file; DamagedClip when it cannot be read right."""
        name = _NAME.fullmatch(entry.stem)
        if name is None:
            raise DamagedClip("the file name does not read aXX_sXX_eXX_skeleton3D")
        action, subject, episode = map(int, name.groups())
        if action not in self._labels:
            raise DamagedClip(f"action {action} is not one of 1 to {len(_ACTIONS)}")
        x_tvc = _coordinates(self.source.read(entry, _MOST_BYTES), self.facts.layout)
        recording = Recording(
            name=entry.stem[: len("aXX_sXX_eXX")],
            frames=len(x_tvc),
            tracks=seen_tracks([x_tvc]),
            label=self._labels[action],
            subject=subject,
            repetition=episode,
        )
        return [recording]


def _action(entry: Entry) -> int:
    """The action in a file's name, -1 when it has none."""
    name = _NAME.fullmatch(entry.stem)
    return int(name.group(1)) if name else -1


def _coordinates(data: bytes, layout: Layout) -> NDArray[np.float32]:
    rows = number_rows(text_lines(data), columns=4)
    if len(rows) % len(_FILE_ORDER):
        raise DamagedClip(f"{len(rows)} lines are no whole number of frames of {len(_FILE_ORDER)} joints")
    x_tvc = rows[:, :3].astype(np.float32).reshape(-1, len(_FILE_ORDER), 3)
    return x_tvc[:, layout.order_from(_FILE_ORDER)]
