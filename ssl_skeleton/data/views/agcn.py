"""The normalisation of published AGCN weights: centred in every frame, spine to z, shoulders to x."""

from functools import partial

import torch
from torch import Tensor

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.axes import moved, turned, with_space
from ssl_skeleton.data.views.normalise import arrow_between, mean_at
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout, Spot, names_of

_SHORTEST = 1e-6  # an arrow below that length points nowhere


def check_agcn(layout: Layout) -> None:
    """Raise UserError when the layout does not say where the spine and the shoulders are."""
    _spots(layout)


def agcn(clips: Clips, layout: Layout, turn_ncd: Tensor | None = None) -> Clips:
    """Clips (N, C, T, V, M) as the data preparation that was published with 2s-AGCN leaves them.

    After the code of Shi et al. (arXiv 1805.07694), whose arrays others of that time train on too, such as
    Shift-GCN. The first body leads: the middle of its spine is the origin of every frame. All of a clip is
    then turned so that, in the first frame in which the first body is seen, its lower spine points along +z,
    and after that so that the arrow from its left shoulder to its right one points along +x; each time by the
    shortest way, so that the second turn may tilt the spine again.

    A place is there when all of its joints are seen. A frame without the middle of the first body's spine is
    not moved; where an end of an arrow is missing, or both are one point, the clip is not turned. What is not
    seen stays zero. The first three coordinates are x, y and z; others stay as they are. `turn_ncd` (N, 3, 3)
    is a matrix by which every point is multiplied after that.

    `PackedClips.loop` in the order `moving` does what comes before: it chooses the bodies and fills T. Raises
    UserError as `check_agcn` does.
    """
    base, middle, left, right = _spots(layout)
    x_nctvm, seen = clips.x[:, :3], None if clips.full else clips.seen
    first_nctv, seen_nctv = x_nctvm[..., 0], None if seen is None else seen[..., 0]
    middle_nct, known_n1t = mean_at(first_nctv, seen_nctv, layout.indices(middle), dim=3, whole=True)
    if known_n1t is not None:
        middle_nct = torch.where(known_n1t, middle_nct, 0.0)
    arrow = partial(arrow_between, *_first_pose(first_nctv, seen_nctv), layout)
    upright_ncd = shortest_turn(arrow(base, middle), onto=2, half_about=0)
    across_nc = (upright_ncd @ arrow(left, right)[:, :, None])[:, :, 0]
    matrix_ncd = shortest_turn(across_nc, onto=0, half_about=2) @ upright_ncd
    x_nctvm = clips.clear_(moved(x_nctvm, middle_nct[..., None, None]))
    x_nctvm = turned(x_nctvm, matrix_ncd if turn_ncd is None else turn_ncd @ matrix_ncd)
    return clips.with_x(with_space(clips.x, x_nctvm))


def shortest_turn(arrow_nc: Tensor, onto: int, half_about: int) -> Tensor:
    """The rotation (N, 3, 3) by the shortest way of each arrow (N, 3) to the positive axis number `onto`.

    An arrow of no length, like one that lies there already, gives the identity, and one that points the
    opposite way the half turn about the axis number `half_about`, where the published code turns nothing.
    """
    axes = torch.eye(3, dtype=arrow_nc.dtype, device=arrow_nc.device)
    length_n1 = arrow_nc.norm(dim=1, keepdim=True)
    arrow_nc = torch.where(length_n1 > _SHORTEST, arrow_nc / length_n1, axes[onto])
    cosine_n11 = arrow_nc[:, onto, None, None]
    # The cross product is the sine times the axis. Rodrigues' formula with an axis of length 1 holds near the
    # half turn too, where the usual one for two vectors divides by almost nothing.
    cross_nc = torch.linalg.cross(arrow_nc, axes[onto].expand_as(arrow_nc))
    sine_n1 = cross_nc.norm(dim=1, keepdim=True)
    straight_n1 = sine_n1 < _SHORTEST
    axis_nc = torch.where(straight_n1, axes[half_about], cross_nc / sine_n1)
    cosine_n11 = torch.where(straight_n1[:, :, None], cosine_n11.sign(), cosine_n11)
    cross_nc = torch.where(straight_n1, 0.0, cross_nc)
    twist_ncd: Tensor = torch.linalg.cross(
        cross_nc[:, None].expand(-1, 3, 3), axes.expand(len(cross_nc), 3, 3)
    ).mT
    return cosine_n11 * axes + twist_ncd + (1 - cosine_n11) * axis_nc[:, :, None] * axis_nc[:, None]


def _spots(layout: Layout) -> tuple[Spot, Spot, Spot, Spot]:
    """The lower end and the middle of the spine, the left and the right shoulder.

    The middle is the common joint `torso`; in a layout without it, the mean of the ends of the spine.
    """
    facing = layout.facing
    if facing is None:
        raise UserError(
            f"data.normalise: agcn turns bodies by their spine and shoulders, but the layout {layout.name} "
            "does not say where they are (its key 'facing'); set it to {center: first_frame, facing: none}"
        )
    ends = (*names_of(facing.lower_spine), *names_of(facing.upper_spine))
    middle = layout.common.get("torso", "torso" if "torso" in layout.joints else ends)
    return facing.lower_spine, middle, facing.left_shoulder, facing.right_shoulder


def _first_pose(x_nctv: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A body (N, C, V) in the first frame in which it is seen, and which of its joints are (N, 1, V or 1)."""
    if seen is None:
        return x_nctv[:, :, 0], None
    each_n = torch.arange(len(x_nctv), device=x_nctv.device)
    frame_n = seen[:, 0].any(dim=2).to(torch.uint8).argmax(dim=1)
    return x_nctv[each_n, :, frame_n], seen[each_n, :, frame_n]
