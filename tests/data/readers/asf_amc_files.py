"""Writes skeletons (ASF) and motions (AMC) like those of CMU and HDM05, for the tests of their readers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

# As in CMU's files, in inches times 0.45: name, parent, direction, length, axis (XYZ), degrees of freedom.
_SIDE = """
hipjoint root 0.6 -0.7 0.38 2.5 0 0 0 -
femur hipjoint 0.34 -0.94 0 7.4 0 0 20 xyz
tibia femur 0.34 -0.94 0 7.2 0 0 20 x
foot tibia 0.07 -0.25 0.96 2.2 -90 7.6 20 xz
toes foot 0 0 1 1.1 -90 0 20 x
clavicle thorax 0.9 0.4 0.05 3.6 0 0 0 yz
humerus clavicle 1 0 0 5.0 180 30 90 xyz
radius humerus 1 0 0 3.4 180 30 90 x
wrist radius 1 0 0 1.7 180 30 90 y
hand wrist 1 0 0 0.7 180 30 90 xz
fingers hand 1 0 0 0.5 180 30 90 x
thumb wrist 0.7 0 0.7 0.8 90 45 180 xz
"""
_MIDDLE = """
lowerback root 0 1 -0.02 2.1 0 0 0 xyz
upperback lowerback 0 1 0.02 2.1 0 0 0 xyz
thorax upperback 0 1 0 2.1 0 0 0 xyz
lowerneck thorax 0 1 0.1 1.7 0 0 0 xyz
upperneck lowerneck 0 1 -0.1 1.6 0 0 0 xyz
head upperneck 0 1 0 1.6 0 0 0 xyz
"""


def _bone(line: str, side: str) -> dict[str, object]:
    name, parent, *numbers, dof = line.split()
    direction, length, axis = np.array(numbers[:3], float), float(numbers[3]), np.array(numbers[4:], float)
    if side == "r":
        direction, axis = direction * (-1, 1, 1), axis * (1, -1, -1)
    if not name.endswith(("back", "neck", "head", "thorax")):
        name = side + name
        parent = parent if parent in ("root", "thorax") else side + parent
    turns = [f"r{axis}" for axis in dof if axis != "-"]
    return {
        "name": name,
        "parent": parent,
        "direction": direction,
        "length": length,
        "axis": axis,
        "dof": turns,
    }


def body() -> list[dict[str, object]]:
    """The 30 bones of a skeleton."""
    sides = [_bone(line, side) for side in "lr" for line in _SIDE.strip().splitlines()]
    return sides + [_bone(line, "") for line in _MIDDLE.strip().splitlines()]


def asf_text(bones: Sequence[Mapping] | None = None, length: float = 0.45) -> str:
    """A skeleton as it stands in a file."""
    bones = body() if bones is None else bones
    lines = ["# AST/ASF file generated using VICON BodyLanguage", ":version 1.10", ":name VICON", ":units"]
    lines += ["  mass 1.0", f"  length {length}", "  angle deg", ":documentation"]
    lines += ["   .ast/.asf automatically generated from VICON data using", "   VICON BodyBuilder", ":root"]
    lines += ["   order TX TY TZ RX RY RZ", "   axis XYZ", "   position 0 0 0", "   orientation 0 0 0"]
    lines += [":bonedata"]
    for number, bone in enumerate(bones, 1):
        lines += ["  begin", f"     id {number}", f"     name {bone['name']}"]
        lines += [f"     direction {' '.join(map(str, bone['direction']))}", f"     length {bone['length']}"]
        lines += [f"     axis {' '.join(map(str, bone['axis']))}   XYZ"]
        if bone["dof"]:
            lines += [f"    dof {' '.join(bone['dof'])}", "    limits (-160.0 20.0)"]
            lines += ["           (-70.0 70.0)"] * (len(bone["dof"]) - 1)
        lines += ["  end"]
    lines += [":hierarchy", "  begin"]
    for parent in dict.fromkeys(bone["parent"] for bone in bones):
        children = [bone["name"] for bone in bones if bone["parent"] == parent]
        lines.append(f"    {parent} {' '.join(children)}")
    return "\n".join([*lines, "  end", ""])


def angles(
    frames: int, seed: int = 0, bones: Sequence[Mapping] | None = None
) -> list[dict[str, list[float]]]:
    """A motion: the numbers of each bone in each frame."""
    rng = np.random.default_rng(seed)
    motion = []
    for frame in range(frames):
        values = {"root": [0.02 * frame, 17.5, -0.1 * frame, *rng.normal(0, 5, 3).round(4)]}
        for bone in body() if bones is None else bones:
            if bone["dof"]:
                values[bone["name"]] = rng.normal(0, 20, len(bone["dof"])).round(4).tolist()
        motion.append(values)
    return motion


def amc_text(motion: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """A motion as it stands in a file."""
    lines = ["#!OML:ASF F:\\VICON\\USERDATA\\01.ASF", ":FULLY-SPECIFIED", ":DEGREES"]
    for number, frame in enumerate(motion, 1):
        lines.append(str(number))
        lines += [f"{bone} {' '.join(map(str, values))}" for bone, values in frame.items()]
    return "\n".join([*lines, ""])


def write_pair(folder: Path, skeleton: str, clip: str, frames: int = 4, seed: int = 0) -> None:
    """Write a motion and its skeleton into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{skeleton}.asf").write_text(asf_text())
    (folder / f"{clip}.amc").write_text(amc_text(angles(frames, seed)))
