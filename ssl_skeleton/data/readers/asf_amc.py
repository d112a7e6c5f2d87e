"""Motion capture in ASF/AMC files: CMU (mocap.cs.cmu.edu) and HDM05 (Mueller et al., report CG-2007-2).

An AMC file holds one clip, the angles of the bones of the skeleton in an ASF file (`asf.py`); the joint of a
bone is its end. CMU: subject_trial.amc with subject.asf. HDM05, as cut into single actions:
HDM_bd_cartwheelLHandStart1Reps_001_120.amc with HDM_bd.asf: actor, class, take, frame rate. Lengths of both
are inches times the `length` of the skeleton's units (0.45). An AMC file does not tell its frame rate: it is
120 but for some trials of CMU at 60.
"""

import io
import re
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.asf import ROOT, SHIFTS, TURNS, Bone, Skeleton, read_asf
from ssl_skeleton.data.parsing.kinematics import Array, frame_blocks, place_joints, turn_matrices
from ssl_skeleton.data.parsing.rows import decimals, without_mark
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.described import clip_name
from ssl_skeleton.data.readers.mocap import ANY_WAY, Mocap
from ssl_skeleton.data.recording import Facts, Recording
from ssl_skeleton.data.source import Entry, Source, text_of
from ssl_skeleton.data.splits import SplitRule
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import load_layout

_LAYOUT = load_layout("mocap_31")
_FPS = 120.0
_BONES = [re.sub("^(l|r)(eft|ight)_", r"\1", joint) for joint in _LAYOUT.joints]  # left_femur is lfemur here
_CMU_NAME = re.compile(r"(\d{1,6})_(\d{1,6})", re.ASCII)
_HDM05_NAME = re.compile(r"HDM_(bd|bk|dg|mm|tr)_([A-Za-z]\w*)_(\d{3})_120", re.ASCII)
_ACTORS = ("bd", "bk", "dg", "mm", "tr")
# None comes with the data: bd and mm train here.
_HDM05_SPLITS = {"cross_subject": SplitRule(column="subject", train=(1, 4), test=(2, 3, 5))}
_ANGLES = {b":DEGREES": np.pi / 180, b":RADIANS": 1.0}
_MOST_ASF = 1 << 20
_MOST_AMC = 1 << 25


class AsfAmc(Mocap):
    """Reader of AMC files and the ASF files that belong to them, of 31 bones each."""

    def __init__(self, source: Source, about: About | None, facts: Facts) -> None:
        entries = source.find("*.amc", "the AMC motions and ASF skeletons")
        if about is not None and about.layout(_LAYOUT.name) != _LAYOUT:
            raise UserError(f"{about.path}: layout: ASF/AMC has {_LAYOUT.name}; leave it out")
        self._skeletons: dict[str, dict[str, Entry]] = {"*": {}}  # by folder and name; "*" is any folder
        for entry in source.find("*.asf", "the ASF skeletons of the AMC motions"):
            for folder in (_folder(entry), "*"):
                self._skeletons.setdefault(folder, {}).setdefault(entry.stem, entry)
        super().__init__(source, about, facts, entries, [_clip(entry) for entry in entries])

    def read(self, entry: Entry) -> Sequence[Recording]:
        """The one clip of a file; DamagedClip when it or its skeleton cannot be read right."""
        known = self._known(entry.stem)
        found = self._skeleton(entry)
        try:
            skeleton = read_asf(self.source.read(found, _MOST_ASF))
        except DamagedClip as error:
            raise DamagedClip(f"its skeleton {found.name}: {error}") from None
        data = self.source.read(entry, _MOST_AMC)
        x_tvc = _places(skeleton, read_amc(data, skeleton), len(data))
        return [self.recording(_clip(entry), x_tvc, skeleton.unit, **known)]

    def _known(self, clip: str) -> dict[str, int]:
        """What a clip's name tells."""
        match = _CMU_NAME.fullmatch(clip)
        return {"subject": int(match[1]), "repetition": int(match[2])} if match else {}

    def _skeleton(self, entry: Entry) -> Entry:
        """The skeleton of a motion: one in its folder first.

        Its name is the longest beginning of the motion's, or it is the only one in the folder of a motion
        whose name is not one of CMU or HDM05, and so does not say to whom it belongs.
        """
        parts = entry.stem.split("_")
        names = ["_".join(parts[:count]) for count in range(len(parts), 0, -1)]
        here = self._skeletons.get(_folder(entry), {})
        found = [here[name] for name in names if name in here]
        if len(here) == 1 and not _is_numbered(entry):
            found += here.values()
        found += [self._skeletons["*"][name] for name in names if name in self._skeletons["*"]]
        if not found:
            raise DamagedClip(f"there is no skeleton for it, such as {names[-1]}.asf")
        return found[0]


class Cmu(AsfAmc):
    """Reader of CMU's motions, and of others like them: labels come by an about file."""

    def __init__(self, source: Source, about: About | None) -> None:
        super().__init__(source, about, Facts("cmu", _LAYOUT, _FPS, note=ANY_WAY))


class Hdm05(AsfAmc):
    """Reader of HDM05 as cut: 5 actors; the classes are those of the files that are there, sorted."""

    def __init__(self, source: Source, about: About | None = None) -> None:
        names = (_HDM05_NAME.fullmatch(entry.stem) for entry in source.matching("*.amc"))
        classes = tuple(sorted({match[2] for match in names if match}))
        self._label = {name: label for label, name in enumerate(classes)}
        super().__init__(
            source, None, Facts("hdm05", _LAYOUT, _FPS, classes, splits=_HDM05_SPLITS, note=ANY_WAY)
        )

    def _known(self, clip: str) -> dict[str, int]:
        match = _HDM05_NAME.fullmatch(clip)
        if match is None:
            raise DamagedClip("the file name does not read HDM_actor_class_take_120")
        subject = _ACTORS.index(match[1]) + 1
        return {"label": self._label[match[2]], "subject": subject, "repetition": int(match[3])}


def read_amc(data: bytes, skeleton: Skeleton) -> Mapping[str, Array]:
    """The numbers of every bone that moves, (T, K) as its K channels; angles in radians.

    Raises DamagedClip, naming the line, unless every frame holds each of these bones once.
    """
    data = without_mark(data)
    text_of(data)
    moving = {bone.name: bone.channels for bone in skeleton.bones if bone.channels}
    widths = {name.encode(): len(channels) for name, channels in moving.items()}
    values = {name: array("d") for name in widths}
    missing: set[bytes] = set()
    angle, following, line = skeleton.angle, -1, 0
    for line, words in enumerate(map(bytes.split, io.BytesIO(data)), 1):
        if not words or words[0].startswith(b"#"):
            continue
        if words[0].startswith(b":"):
            angle = _ANGLES.get(words[0].upper(), angle)
        elif len(words) == 1 and words[0].isdigit():
            _check_complete(missing, line)
            frame = int(words[0][:18])
            if following not in (-1, frame):
                raise DamagedClip(f"line {line}: frame {following} should stand here, not {frame}")
            following, missing = frame + 1, set(widths)
        else:
            _take(words, line, widths, missing, values)
    if following < 0:
        raise DamagedClip(f"line {line + 1}: the file ends before its first frame")
    _check_complete(missing, line + 1)
    motion = {}
    for name, channels in moving.items():
        scale = [angle if channel in TURNS else 1.0 for channel in channels]
        motion[name] = np.array(values[name.encode()]).reshape(-1, len(channels)) * scale
    return motion


def _check_complete(missing: set[bytes], line: int) -> None:
    if missing:
        raise DamagedClip(f"line {line}: the frame before has no {min(missing).decode()}")


def _take(
    words: Sequence[bytes],
    line: int,
    widths: Mapping[bytes, int],
    missing: set[bytes],
    values: Mapping[bytes, "array[float]"],
) -> None:
    """Take the numbers of a bone on one line."""
    bone, *numbers = words
    if bone not in missing:
        fault = (
            "stands twice in its frame, or before any" if bone in widths else "does not move in the skeleton"
        )
        raise DamagedClip(f"line {line}: bone {bone[:40].decode()!r} {fault}")
    if len(numbers) != widths[bone]:
        raise DamagedClip(f"line {line}: {len(numbers)} values, not {widths[bone]}")
    missing.remove(bone)
    values[bone].extend(decimals(numbers, line))


def _places(skeleton: Skeleton, motion: Mapping[str, Array], size: int) -> NDArray[np.float32]:
    """Where the ends of the layout's bones are, (T, V, 3), in the units of the file of `size` bytes."""
    names = [bone.name for bone in skeleton.bones]
    for name in _BONES:
        if name not in names:
            raise DamagedClip(f"its skeleton has no bone {name}")
    order = [names.index(name) for name in _BONES]
    parents = [bone.parent for bone in skeleton.bones]
    frames = len(motion[ROOT])
    blocks = frame_blocks(frames, len(names), size)
    x_tvc = np.zeros((frames, len(order), 3), np.float32)
    for block in blocks:
        turns, shifts = zip(*(_pose(bone, motion, block) for bone in skeleton.bones), strict=True)
        x_tvc[block] = place_joints(parents, turns, shifts)[:, order]
    return x_tvc


def _pose(bone: Bone, motion: Mapping[str, Array], block: slice) -> tuple[Array, Array]:
    """How a bone is turned in its parent's coordinates, (T, 3, 3), and where its end is there, (T, 3)."""
    by_channel = dict(zip(bone.channels, motion[bone.name][block].T, strict=True)) if bone.channels else {}
    turning = [channel for channel in bone.channels if channel in TURNS][::-1]  # the first one turns first
    count = block.stop - block.start
    angles_tk = (
        np.stack([by_channel[channel] for channel in turning], axis=1) if turning else np.zeros((count, 0))
    )
    axes = "".join(channel[1] for channel in turning)
    turn_tij = bone.axes_ij @ turn_matrices(angles_tk, axes) @ bone.axes_ij.T
    if bone.parent < 0:
        shift = [by_channel.get(channel, np.zeros(count)) for channel in SHIFTS]
        return turn_tij, bone.offset_c + np.stack(shift, axis=1)
    return turn_tij, turn_tij @ bone.offset_c


def _is_numbered(entry: Entry) -> bool:
    """Whether a file is named as those of CMU or HDM05, each of which has a name of its own."""
    return bool(_CMU_NAME.fullmatch(entry.stem) or _HDM05_NAME.fullmatch(entry.stem))


def _clip(entry: Entry) -> str:
    """The name of the clip that a file is; but for CMU and HDM05, files in two folders may share theirs."""
    return entry.stem if _is_numbered(entry) else clip_name(entry)


def _folder(entry: Entry) -> str:
    return f"{entry.root}/{entry.folder}"
