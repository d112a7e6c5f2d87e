"""The skeletons of motion capture in ASF files (Acclaim; as written for CMU and HDM05).

A bone has a direction and a length, in the coordinates of the whole body at rest, and axes of its own, about
which it turns. In a pose its rotation is its parent's times C M C^-1: C turns to its own axes, M is the
motion. `axis 10 20 30 XYZ` turns about x first, then y, then z; the angles of M turn in the order in which
`dof` lists them. The root is like a bone without length, its `orientation` its axes; its `position` is added
to its motion.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssl_skeleton.data.parsing.kinematics import Array, turn_matrices
from ssl_skeleton.data.parsing.rows import decimals, without_mark
from ssl_skeleton.data.source import text_of
from ssl_skeleton.errors import DamagedClip

ROOT = "root"
# Lengths of CMU are inches times 0.45, as the line `length 0.45` says.
_INCH = 0.0254
_MOST_BONES = 200
TURNS = ("rx", "ry", "rz")
SHIFTS = ("tx", "ty", "tz")

Line = tuple[int, list[str]]  # its number, its words


@dataclass(frozen=True)
class Bone:
    """A bone: its parent's place among the bones (-1: none), where it leads at rest, and how it moves.

    `offset_c` (3,) is in the units of the file, `axes_ij` (3, 3) is C; `channels` are rx, ry, rz, and for the
    root tx, ty, tz as well, in the order of the motion's numbers.
    """

    name: str
    parent: int
    offset_c: Array
    axes_ij: Array
    channels: tuple[str, ...]


@dataclass(frozen=True)
class Skeleton:
    """The bones, the root first and parents before children; metres per unit, radians per angle."""

    bones: tuple[Bone, ...]
    unit: float
    angle: float


def read_asf(data: bytes) -> Skeleton:
    """Read an ASF file; DamagedClip, naming the line, when it cannot be read right."""
    sections = _sections(text_of(without_mark(data)))
    unit, angle = _units(sections["units"])
    bones = {
        bone.name: bone for bone in (_root(sections["root"], angle), *_bones(sections["bonedata"], angle))
    }
    if len(bones) != 1 + sum(words[0] == "begin" for _, words in sections["bonedata"]):
        raise DamagedClip("a bone's name stands twice")
    if len(bones) > _MOST_BONES:
        raise DamagedClip(f"{len(bones)} bones are more than {_MOST_BONES}")
    ordered = _ordered(bones, _parents(sections["hierarchy"], bones))
    return Skeleton(ordered, unit, angle)


def _sections(text: str) -> Mapping[str, list[Line]]:
    """The lines of every part of the file that a line such as `:units` begins, without comments."""
    sections: dict[str, list[Line]] = defaultdict(list)
    name = ""
    for line, words in enumerate(map(str.split, text.splitlines()), 1):
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(":"):
            name = words[0][1:].lower()
        else:
            sections[name].append((line, words))
    for needed in ("units", ROOT, "bonedata", "hierarchy"):
        if not sections[needed]:
            raise DamagedClip(f"the skeleton has no :{needed}")
    return sections


def _fields(lines: Sequence[Line], what: str) -> dict[str, Line]:
    """Lines by their first word, which stands once; what follows a bone's limits begins with a bracket."""
    fields: dict[str, Line] = {}
    for line, (key, *words) in lines:
        if key.lower() in fields:
            raise DamagedClip(f"line {line}: {key[:40]!r} stands twice in {what}")
        if not key.startswith("("):
            fields[key.lower()] = line, words
    return fields


def _field(fields: Mapping[str, Line], key: str, count: int, what: str) -> Line:
    """The `count` words of a line that must be there."""
    if key not in fields:
        raise DamagedClip(f"{what} has no {key}")
    line, words = fields[key]
    if len(words) != count:
        raise DamagedClip(f"line {line}: {key} has {len(words)} values, not {count}")
    return line, words


def _vector(fields: Mapping[str, Line], key: str, what: str) -> Array:
    line, words = _field(fields, key, 3, what)
    return np.array(_numbers(words, line))


def _numbers(words: Sequence[str], line: int) -> list[float]:
    return decimals([word.encode() for word in words], line)


def _units(lines: Sequence[Line]) -> tuple[float, float]:
    fields = _fields(lines, ":units")
    line, words = _field(fields, "length", 1, ":units")
    (length,) = _numbers(words, line)
    if not 1e-3 <= length <= 1e3:
        raise DamagedClip(f"line {line}: length {words[0]} is no scale")
    line, words = _field(fields, "angle", 1, ":units")
    if words[0].lower() not in ("deg", "rad"):
        raise DamagedClip(f"line {line}: angle {words[0][:40]!r} is neither deg nor rad")
    return _INCH / length, np.pi / 180 if words[0].lower() == "deg" else 1.0


def _root(lines: Sequence[Line], angle: float) -> Bone:
    fields = _fields(lines, ":root")
    if not fields.get("order", (0, []))[1]:
        raise DamagedClip(":root has no order")
    channels = _channels(*fields["order"], (*SHIFTS, *TURNS))
    line, words = _field(fields, "axis", 1, ":root")
    axes = _axes(_vector(fields, "orientation", ":root") * angle, words[0], line)
    return Bone(ROOT, -1, _vector(fields, "position", ":root"), axes, channels)


def _bones(lines: Sequence[Line], angle: float) -> Iterator[Bone]:
    start: int | None = None
    for at, (line, words) in enumerate(lines):
        if words[0] == "begin":
            if start is not None:
                raise DamagedClip(f"line {line}: a bone begins within another")
            start = at
        elif start is None:
            raise DamagedClip(f"line {line}: no bone has begun here")
        elif words[0] == "end":
            yield _bone(lines[start + 1 : at], f"the bone of line {lines[start][0]}", angle)
            start = None
    if start is not None:
        raise DamagedClip(f"line {lines[start][0]}: the bone that begins here does not end")


def _bone(lines: Sequence[Line], what: str, angle: float) -> Bone:
    fields = _fields(lines, what)
    _, (name,) = _field(fields, "name", 1, what)
    line, words = _field(fields, "length", 1, what)
    offset_c = _vector(fields, "direction", what) * _numbers(words, line)
    line, words = _field(fields, "axis", 4, what)
    angles = np.array(_numbers(words[:3], line)) * angle
    channels = _channels(*fields["dof"], TURNS) if "dof" in fields else ()
    return Bone(name, -1, offset_c, _axes(angles, words[3], line), channels)


def _channels(line: int, words: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    channels = tuple(word.lower() for word in words)
    if not set(channels) <= set(known) or len(set(channels)) < len(channels):
        raise DamagedClip(f"line {line}: {' '.join(words)[:40]!r} are not some of {' '.join(known)}")
    return channels


def _axes(angles: Array, order: str, line: int) -> Array:
    """The rotation by angles about x, y, z, in the order of letters such as XYZ."""
    if sorted(order.lower()) != ["x", "y", "z"]:
        raise DamagedClip(f"line {line}: {order[:40]!r} is no order of X, Y and Z")
    backwards = order.lower()[::-1]
    by_axis = angles[["xyz".index(axis) for axis in backwards]]
    axes: Array = turn_matrices(by_axis[None], backwards)[0]
    return axes


def _parents(lines: Sequence[Line], bones: Mapping[str, Bone]) -> dict[str, str]:
    parents: dict[str, str] = {}
    for line, words in lines:
        if words[0] in ("begin", "end") and len(words) == 1:
            continue
        for name in words:
            if name not in bones:
                raise DamagedClip(f"line {line}: there is no bone {name[:40]!r}")
        for child in words[1:]:
            if child in parents or child == ROOT:
                raise DamagedClip(f"line {line}: bone {child[:40]!r} has a second parent")
            parents[child] = words[0]
    return parents


def _ordered(bones: Mapping[str, Bone], parents: Mapping[str, str]) -> tuple[Bone, ...]:
    """The bones with their parents' places, parents before children."""
    children = defaultdict(list)
    for child, parent in parents.items():
        children[parent].append(child)
    ordered: list[Bone] = []
    waiting = [(ROOT, -1)]
    while waiting:
        name, place = waiting.pop()
        waiting += [(child, len(ordered)) for child in children[name]]
        ordered.append(replace(bones[name], parent=place))
    if len(ordered) < len(bones):
        lost = min(bones.keys() - {bone.name for bone in ordered})
        raise DamagedClip(f"the hierarchy does not lead from the root to bone {lost[:40]!r}")
    return tuple(ordered)
