"""Motion capture in BVH files (Biovision), one person each, of any skeleton.

The first file that can be read decides on the joints and the frame rate; others that differ are damaged. Its
hierarchy becomes the layout (`bvh_names.py`), unless an about file names one, onto which it is mapped by
name. Position channels, of the root or another joint, take the place of its OFFSET, as MotionBuilder and
Blender have it; rotations stand in the order of the channels, the last one turning first. Degrees. End Sites
are left out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.bvh import Joint, Motion, read_bvh, read_header
from ssl_skeleton.data.parsing.kinematics import Array, frame_blocks, place_joints, turn_matrices
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.bvh_names import common_names, layout_of
from ssl_skeleton.data.readers.described import clip_name
from ssl_skeleton.data.readers.mocap import ANY_WAY, Mocap
from ssl_skeleton.data.recording import Facts, Recording
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import Layout

_MOST_BYTES = 1 << 27
_SAME_RATE = 0.01  # rates that differ by less are the same one, written with few digits
_NOTE = f"{ANY_WAY}; the unit is the metre unless the about file says otherwise"


class Bvh(Mocap):
    """Reader of BVH files: labels, and the unit where it is not the metre, come by an about file."""

    def __init__(self, source: Source, about: About | None) -> None:
        entries = source.find("*.bvh", "the recordings")
        self._joints, fps = _first(source, entries)
        names = common_names([joint.name for joint in self._joints])
        if about is not None and about.config.layout is not None:
            layout = about.layout()
            names = [
                joint.name if joint.name in layout.joints else name
                for joint, name in zip(self._joints, names, strict=True)
            ]
        else:
            dataset = about.config.dataset if about is not None else "bvh"
            layout = layout_of(dataset, names, [joint.parent for joint in self._joints])
        self._order = _order(layout, names, about)
        facts = Facts("bvh", layout, fps, note=_NOTE)
        super().__init__(source, about, facts, entries, [clip_name(entry) for entry in entries])

    def read(self, entry: Entry) -> Sequence[Recording]:
        """The one clip of a file; DamagedClip when it cannot be read right, or differs from the first."""
        data = self.source.read(entry, _MOST_BYTES)
        motion = read_bvh(data)
        if _tree(motion.joints) != _tree(self._joints):
            raise DamagedClip(
                f"its joints are not those of the other files: {_difference(motion, self._joints)}"
            )
        if abs(1 / motion.frame_time - self.facts.fps) > _SAME_RATE * self.facts.fps:
            raise DamagedClip(
                f"Frame Time {motion.frame_time:g} is not that of {self.facts.fps:g} frames a second"
            )
        x_tvc = _places(motion, len(data))[:, self._order]
        return [self.recording(clip_name(entry), x_tvc, 1.0)]


def _first(source: Source, entries: Sequence[Entry]) -> tuple[Sequence[Joint], float]:
    """The joints and the frame rate of the first file that can be read."""
    fault: DamagedClip | None = None
    for entry in entries:
        try:
            header = read_header(source.read(entry, _MOST_BYTES))
        except DamagedClip as error:
            fault = fault or error
        else:
            rate = 1 / header.frame_time
            whole = abs(rate - round(rate)) < 5e-4 * rate
            return header.joints, float(round(rate)) if whole else round(rate, 3)
    raise UserError(f"{source}: none of the {len(entries)} BVH files can be read; {entries[0].name}: {fault}")


def _order(layout: Layout, names: Sequence[str], about: About | None) -> list[int]:
    try:
        return list(layout.order_from(names))
    except UserError as error:
        where = about.path if about is not None else layout.name
        raise UserError(f"{where}: layout: does not fit the BVH files: {error}") from None


def _tree(joints: Sequence[Joint]) -> list[tuple[str, int]]:
    return [(joint.name, joint.parent) for joint in joints]


def _difference(motion: Motion, joints: Sequence[Joint]) -> str:
    here, there = ({joint.name for joint in every} for every in (motion.joints, joints))
    if here == there:
        return "they have another order or other parents"
    lacking, extra = sorted(there - here), sorted(here - there)
    return f"{len(lacking)} missing, {len(extra)} more, such as '{(lacking + extra)[0]}'"


def _places(motion: Motion, size: int) -> NDArray[np.float32]:
    """Where the joints are, (T, V, 3), in the units of the file, which has `size` bytes."""
    frames, joints = len(motion.values_tk), motion.joints
    blocks = frame_blocks(frames, len(joints), size)
    x_tvc = np.zeros((frames, len(joints), 3), np.float32)
    for block in blocks:
        columns = iter(motion.values_tk[block].T)
        count = block.stop - block.start
        turns, shifts = [], []
        for joint in joints:
            turn_tij, shift_tc = _pose(joint, {channel: next(columns) for channel in joint.channels}, count)
            turns.append(turn_tij)
            shifts.append(shift_tc)
        x_tvc[block] = place_joints([joint.parent for joint in joints], turns, shifts)
    return x_tvc


def _pose(joint: Joint, values: dict[str, Array], count: int) -> tuple[Array, Array]:
    """How a joint is turned in its parent's coordinates, (T, 3, 3), and where it is there, (T, 3)."""
    shift_tc = np.tile(joint.offset_c, (count, 1))
    axes = ""
    angles = [np.zeros((count, 0))]
    for channel, value_t in values.items():
        if channel.endswith("position"):
            shift_tc[:, "xyz".index(channel[0])] = value_t
        else:
            axes += channel[0]
            angles.append(np.radians(value_t)[:, None])
    return turn_matrices(np.concatenate(angles, axis=1), axes), shift_tc
