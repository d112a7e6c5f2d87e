"""From one body to another: joints by their names, through the names that most bodies share."""

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import COMMON_NAMES, Layout, layout_names, load_layout, names_of


def remap_matrix(source: Layout, target: Layout) -> NDArray[np.float32]:
    """The weights (V_target, V_source) that make each joint of `target` from those of `source`.

    Every row is a mean, so it sums to 1. A joint is looked up by its own name, unless one of the layouts says
    that the common joint of that name lies elsewhere, and then by the common names of both. A layout
    gives itself the identity.

    Raises UserError, naming them all, when joints of `target` cannot be had.
    """
    found = {joint: _sources(joint, source, target) for joint in target.joints}
    missing = [joint for joint, places in found.items() if not places]
    if missing:
        raise UserError(
            f"{source.name} cannot be turned into {target.name}, since it lacks {', '.join(missing)}; "
            + _alternatives(source)
        )
    matrix = np.zeros((len(target.joints), len(source.joints)), np.float32)
    for row, places in enumerate(found.values()):
        matrix[row, [source.index(joint) for joint in places]] = 1 / len(places)
    return matrix


def remap(frames_rvc: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Frames (R, V_source, C) of one body as frames (R, V_target, C) of another, by a `remap_matrix`.

    A joint exactly at zero is missing: the mean of several joints takes those that are there, and is zero
    when none is.
    """
    seen_rv = (frames_rvc != 0).any(axis=2)
    weight_rv = seen_rv.astype(np.float32) @ matrix.T
    weight_rv[weight_rv == 0] = 1
    return np.asarray(matrix @ frames_rvc / weight_rv[:, :, None])


def _sources(joint: str, source: Layout, target: Layout) -> tuple[str, ...]:
    """The joints of `source` whose mean is this joint of `target`; none where it cannot be had."""
    same = source.common.get(joint) == target.common.get(joint)  # else the name means different joints
    if joint in source.joints and same:
        return (joint,)
    names = [name for name in COMMON_NAMES if _place(target, name) == (joint,)]
    names.sort(key=lambda name: name != joint)  # a hand that is also the wrist is a hand first
    return next((place for name in names if (place := _place(source, name))), ())


def _place(layout: Layout, name: str) -> tuple[str, ...]:
    """The joints of a layout whose mean is the common joint `name`; none where it has no such place."""
    return names_of(layout.common.get(name, name if name in layout.joints else ()))


def _alternatives(source: Layout) -> str:
    layouts = (load_layout(name) for name in layout_names() if name != source.name)
    possible = [to.name for to in layouts if all(_sources(joint, source, to) for joint in to.joints)]
    if possible:
        return "possible are " + ", ".join(possible)
    return f"name the places of its joints under 'common' in the layout {source.name}"
