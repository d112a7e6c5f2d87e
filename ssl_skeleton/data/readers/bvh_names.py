"""Layouts of BVH skeletons: joints by our common names where their convention is known, mirror pairs, facing.

Known are the names of MotionBuilder, Mixamo, LAFAN1 and cgspeed's CMU (LeftUpLeg, LeftLeg, LeftFoot;
LeftShoulder is the collar, LeftArm the shoulder) and of Biovision (LeftHip, LeftKnee, LeftAnkle; LeftCollar,
LeftShoulder, LeftElbow, LeftWrist). Other joints keep their names.
"""

import re
from collections.abc import Mapping, Sequence

from ssl_skeleton.skeleton.layout import Layout

_MIDDLE = {"hips": "pelvis", "hip": "pelvis", "pelvis": "pelvis", "neck": "neck", "head": "head"}
# By the name of the joint that tells the convention; all names as without their side, in small letters.
_LIMBS = {
    "upleg": {"upleg": "hip", "leg": "knee", "foot": "ankle", "toebase": "foot", "toe": "foot"},
    "knee": {"hip": "hip", "knee": "knee", "ankle": "ankle", "foot": "foot", "toe": "toe"},
    "forearm": {"shoulder": "collar", "arm": "shoulder", "forearm": "elbow", "hand": "wrist"},
    "elbow": {"collar": "collar", "shoulder": "shoulder", "elbow": "elbow", "wrist": "wrist", "hand": "hand"},
}
_SPACE = re.compile(r"^.*:|^mixamorig\d*_?", re.ASCII)  # mixamorig:Hips
_SIDES = (
    re.compile(r"(?P<side>left|right)[_ .-]?(?P<rest>.+)", re.IGNORECASE),
    re.compile(r"(?P<side>[lr])[_ .-](?P<rest>.+)", re.IGNORECASE),
    re.compile(r"(?P<side>[LR])(?P<rest>[A-Z].*)"),
    re.compile(r"(?P<rest>.+)[_ .-](?P<side>left|right|l|r)", re.IGNORECASE),
)


def common_names(names: Sequence[str]) -> list[str]:
    """The joints' names with those that are known turned into common ones: LeftUpLeg is left_hip."""
    short = [_SPACE.sub("", name) or name for name in names]
    short = short if len(set(short)) == len(short) else list(names)
    sided = [_side(name) for name in short]
    found = {("", name): common for name, common in _MIDDLE.items()}
    for side in ("left", "right"):
        here = {rest for where, rest in sided if where == side}
        for sign, known in _LIMBS.items():
            if sign in here:
                found |= {(side, rest): f"{side}_{name}" for rest, name in known.items()}
    taken = set(short)
    common = []
    for name, key in zip(short, sided, strict=True):
        new = found.get(key, name)
        common.append(name if new in taken else new)
        taken.add(common[-1])
    return common


def layout_of(name: str, joints: Sequence[str], parents: Sequence[int]) -> Layout:
    """A layout of joints by their names; facing is found when hips and shoulders are."""
    sided = {_side(joint): joint for joint in joints}
    tree = {
        "name": name,
        "joints": list(joints),
        "bones": {
            joint: joints[parent] for joint, parent in zip(joints, parents, strict=True) if parent >= 0
        },
        "mirror": {
            left: sided["right", rest]
            for (side, rest), left in sided.items()
            if side == "left" and ("right", rest) in sided
        },
        "root": joints[0],
    }
    facing = _facing(joints)
    return Layout.from_tree(tree | ({"facing": facing} if facing else {}), "the hierarchy of the BVH files")


def _facing(joints: Sequence[str]) -> Mapping[str, str | list[str]]:
    ends = {f"{side}_{end}": f"{side}_{end}" for end in ("hip", "shoulder") for side in ("left", "right")}
    if not ends.keys() <= set(joints):
        return {}
    spine = {
        "lower_spine": "pelvis" if "pelvis" in joints else ["left_hip", "right_hip"],
        "upper_spine": "neck" if "neck" in joints else ["left_shoulder", "right_shoulder"],
    }
    return ends | spine


def _side(name: str) -> tuple[str, str]:
    """The side of the body on which a joint lies, left, right or neither, and its name without it."""
    for pattern in _SIDES:
        match = pattern.fullmatch(name)
        if match:
            return "left" if match["side"][0] in "lL" else "right", match["rest"].lower()
    return "", name.lower()
