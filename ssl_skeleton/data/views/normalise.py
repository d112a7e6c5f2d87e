"""Where a body stands, where it looks and how tall it is say little about its motion: take them out."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError
from torch import Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.data.views.axes import index_of, moved, turned, with_space
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Facing, Layout, Spot

_SHOULDERS_TO_SPINE = 1.5  # about how many times the shoulders' distance a spine is long


class NormaliseConfig(Config):
    """What is taken out of the coordinates, in this order.

    The leading body is the first one seen in the first frame in which any is seen; all bodies are moved,
    turned and scaled as one. Its reference frame is that first one or, where single joints are missing, the
    first of those in which it shows most of the joints that are asked for here.

    center  `first_frame` moves the leading body's root (its layout's `center`, if that names one) in the
            reference frame to the origin, or the mean of the joints seen there when it is missing.
            `each_frame` does so in every frame (which also takes the path walked out); one without the root
            takes the nearest earlier root, else the first later one.
    facing  turns the clip so that, in the reference frame, the leading body looks along -z: `yaw` about the
            vertical alone, `body` also makes its spine upright. When a hip is missing, the shoulders alone
            tell where it looks, and the other way round; without either pair it stays as it is, and without
            an end of the spine `body` is `yaw`.
    scale   `torso` divides by the length of the leading body's spine in the reference frame, or by 1.5 times
            the distance of its shoulders when an end of the spine is missing, or by 1 without those; `minmax`
            maps each coordinate's range in the clip to -1..1.
    """

    center: Literal["none", "first_frame", "each_frame"] = "first_frame"
    facing: Literal["none", "yaw", "body"] = "body"
    scale: Literal["none", "torso", "minmax"] = "none"


def _check_choice(value: Any) -> Any:
    """Say what is wrong with the tree or the name that is meant; a plain union finds a fault for each."""
    if isinstance(value, dict):
        return NormaliseConfig.model_validate(value)
    if value != "agcn" and not isinstance(value, NormaliseConfig):
        choices = "'agcn', '{center: ..., facing: ..., scale: ...}'"
        raise PydanticKnownError("literal_error", {"expected": choices})
    return value


Normalise = Annotated[Literal["agcn"] | NormaliseConfig, BeforeValidator(_check_choice)]


def check_normalise(layout: Layout, config: NormaliseConfig) -> None:
    """Raise UserError when `config` needs to know where a body looks, and the layout does not tell."""
    if config.facing != "none":
        _facing(layout, "facing")
    if config.scale == "torso":
        _facing(layout, "scale")


def normalise(clips: Clips, layout: Layout, config: NormaliseConfig, turn_ncd: Tensor | None = None) -> Clips:
    """Clips (N, C, T, V, M) with the nuisances named in `config` taken out; what is not seen stays zero.

    `turn_ncd` (N, 3, 3) is a matrix by which every point is multiplied after that. The first three
    coordinates are x, y and z; others stay as they are. Raises UserError as `check_normalise` does.
    """
    x_nctvm = clips.x[:, :3]
    pose_ncv, there_n1v = _reference(clips, _asked(layout, config))
    if config.center != "none":
        origin = _origin(pose_ncv, there_n1v, layout)[:, :, None, None, None]
        if config.center == "each_frame":
            origin = _origins(clips, origin, layout)
        x_nctvm = clips.clear_(moved(x_nctvm, origin))  # nothing that follows moves a zero
    if config.facing != "none":
        facing_ncd = facing_rotation(pose_ncv, layout, there_n1v, upright=config.facing == "body")
        if turn_ncd is None or config.scale == "minmax":
            x_nctvm = turned(x_nctvm, facing_ncd)
        else:  # one product for both
            turn_ncd = turn_ncd @ facing_ncd
    if config.scale == "torso":
        x_nctvm = x_nctvm / _torso_length(pose_ncv, there_n1v, layout)[:, None, None, None, None]
    if config.scale == "minmax":
        x_nctvm = _minmax(x_nctvm, clips.seen & _valid(clips))
    if turn_ncd is not None:
        x_nctvm = turned(x_nctvm, turn_ncd)
    return clips.with_x(with_space(clips.x, x_nctvm))


def facing_rotation(
    pose_ncv: Tensor, layout: Layout, there_n1v: Tensor | None = None, *, upright: bool
) -> Tensor:
    """The rotation (N, 3, 3) that turns a pose (N, 3, V) to look along -z, its left at the smaller x.

    `upright` also turns its spine to +y; else the vertical stays as it is. `there_n1v` bool (N, 1, V or 1)
    are the joints that are seen, None: all. Of hips, shoulders and spine only what is complete counts:
    without hips and shoulders (all zero, say) a pose gets the identity, without a spine its vertical stays.
    Raises UserError when the layout has no `facing`.
    """
    facing = _facing(layout, "facing")
    arrow = partial(arrow_between, pose_ncv, there_n1v, layout)
    hips = arrow(facing.left_hip, facing.right_hip)
    shoulders = arrow(facing.left_shoulder, facing.right_shoulder)
    vertical = torch.tensor([0.0, 1.0, 0.0], dtype=pose_ncv.dtype, device=pose_ncv.device).expand(
        len(pose_ncv), 3
    )
    up = arrow(facing.lower_spine, facing.upper_spine, instead=vertical) if upright else vertical
    right, up_length = hips + shoulders, up.norm(dim=1, keepdim=True)
    up = up / up_length.clamp(min=1e-6)
    right = right - (right * up).sum(dim=1, keepdim=True) * up
    right_length = right.norm(dim=1, keepdim=True)
    right = right / right_length.clamp(min=1e-6)
    rotation_ncd = torch.stack([right, up, torch.linalg.cross(right, up)], dim=1)
    degenerate = (right_length < 1e-3) | (up_length < 1e-3)
    return torch.where(
        degenerate[:, :, None], torch.eye(3, dtype=right.dtype, device=right.device), rotation_ncd
    )


def arrow_between(
    pose_ncv: Tensor,
    there_n1v: Tensor | None,
    layout: Layout,
    start: Spot,
    end: Spot,
    *,
    instead: float | Tensor = 0,
) -> Tensor:
    """The way (N, C) from `start` to `end` in a pose (N, C, V); `instead` where a joint of them is missing.

    `there_n1v` bool (N, 1, V or 1) are the joints that are seen, None: all.
    """
    tail, tail_there_n1 = mean_at(pose_ncv, there_n1v, layout.indices(start), whole=True)
    head, head_there_n1 = mean_at(pose_ncv, there_n1v, layout.indices(end), whole=True)
    if tail_there_n1 is None or head_there_n1 is None:
        return head - tail
    return torch.where(tail_there_n1 & head_there_n1, head - tail, instead)


def _asked(layout: Layout, config: NormaliseConfig) -> list[int]:
    """The joints that `config` is measured on."""
    spots: list[Spot] = []
    if config.center != "none":
        spots += [layout.center or layout.root]
    if config.facing != "none":
        facing = _facing(layout, "facing")
        spots += [facing.left_hip, facing.right_hip, facing.left_shoulder, facing.right_shoulder]
    if config.facing == "body" or config.scale == "torso":
        facing = _facing(layout, "scale" if config.facing == "none" else "facing")
        spots += [facing.lower_spine, facing.upper_spine]
    return sorted({joint for spot in spots for joint in layout.indices(spot)})


def _reference(clips: Clips, asked: list[int]) -> tuple[Tensor, Tensor | None]:
    """The leading body (N, C, V) in its reference frame, and which of its joints are there (N, 1, V or 1).

    None: all of them.
    """
    x_nctvm, seen = clips.x[:, :3], clips.seen
    if clips.full:
        return x_nctvm[:, :, 0, :, 0], None
    body_ntm = seen[:, 0].any(dim=2).to(torch.uint8)
    each_n = torch.arange(len(x_nctvm), device=x_nctvm.device)
    frame_n = body_ntm.amax(dim=2).argmax(dim=1)
    leader_n = body_ntm[each_n, frame_n].argmax(dim=1)
    if seen.shape[3] > 1:
        seen_ntv = seen[each_n, 0, :, :, leader_n]
        shown_nt = seen_ntv[:, :, asked].sum(dim=2)
        frame_n = torch.where(seen_ntv.any(dim=2), shown_nt, -1).argmax(dim=1)
    return x_nctvm[each_n, :, frame_n, :, leader_n], seen[each_n, :, frame_n, :, leader_n]


def _origin(pose_ncv: Tensor, there_n1v: Tensor | None, layout: Layout) -> Tensor:
    """The centre of a pose (N, C), or the mean of what is there when nothing of the centre is."""
    center, there_n1 = mean_at(pose_ncv, there_n1v, _center(layout))
    if there_n1 is None or there_n1v is None or there_n1v.shape[2] == 1:
        return center
    return torch.where(there_n1, center, mean_at(pose_ncv, there_n1v, range(pose_ncv.shape[2]))[0])


def _origins(clips: Clips, instead: Tensor, layout: Layout) -> Tensor:
    """The centre of whoever leads each frame, (N, C, T, 1, 1); `instead` (N, C, 1, 1, 1) where there is none.

    A frame without it has that of the nearest earlier frame, else of the first later one.
    """
    x_nctvm, seen = clips.x[:, :3], clips.seen
    if clips.full:
        return mean_at(x_nctvm[..., :1], None, _center(layout), dim=3)[0][:, :, :, None]
    # (N, 1, T, 1, 1): the first body seen leads a frame
    leader = seen.any(dim=3, keepdim=True).to(torch.uint8).argmax(dim=4, keepdim=True)
    centers, there = mean_at(x_nctvm, seen, _center(layout), dim=3)
    centers = centers[:, :, :, None].gather(4, leader.expand(-1, centers.shape[1], -1, -1, -1))
    if there is None or seen.shape[3] == 1:
        return centers
    there = there[:, :, :, None].gather(4, leader)
    step = torch.arange(there.shape[2], device=there.device)[:, None, None]
    source = torch.where(there, step, -1).cummax(dim=2).values
    source = torch.where(source < 0, there.to(torch.uint8).argmax(dim=2, keepdim=True), source)
    return torch.where(there.any(dim=2, keepdim=True), centers.gather(2, source.expand_as(centers)), instead)


def _center(layout: Layout) -> tuple[int, ...]:
    return layout.indices(layout.center or layout.root)


def mean_at(
    x: Tensor, there: Tensor | None, joints: Sequence[int], dim: int = 2, *, whole: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The mean over those of `joints` on the axis `dim` that are there, and whether any is, or all (`whole`).

    `x` (N, C, ...) is zero where `there` (N, 1, ...), of V or 1 on that axis, is false. Where that is None,
    all are there.
    """
    if there is not None and there.shape[dim] == 1:  # bodies are seen as a whole
        there = there.expand(*there.shape[:dim], x.shape[dim], *there.shape[dim + 1 :])
    if len(joints) == 1:
        return x.select(dim, joints[0]), None if there is None else there.select(dim, joints[0])
    index = index_of(tuple(joints), x.device)
    x = x.index_select(dim, index)
    if there is None:
        return x.mean(dim), None
    there = there.index_select(dim, index)
    known = there.all(dim) if whole else there.any(dim)
    return x.sum(dim) / there.sum(dim).clamp(min=1), known


def _facing(layout: Layout, key: str) -> Facing:
    if layout.facing is None:
        raise UserError(
            f"data.normalise.{key}: the layout {layout.name} does not say which joints tell where a body "
            "looks (its key 'facing'); set it to none"
        )
    return layout.facing


def _torso_length(pose_ncv: Tensor, there_n1v: Tensor | None, layout: Layout) -> Tensor:
    """The length of the spine (N,) in metres, else 1.5 times that between the shoulders; 1 without both."""
    facing = _facing(layout, "scale")

    def length(one: Spot, two: Spot) -> Tensor:
        ends = [mean_at(pose_ncv, there_n1v, layout.indices(spot)) for spot in (one, two)]
        (tail, tail_there_n1), (head, head_there_n1) = ends
        found: Tensor = (head - tail).norm(dim=1)
        if tail_there_n1 is None or head_there_n1 is None:
            return found
        return torch.where((tail_there_n1 & head_there_n1)[:, 0], found, torch.nan)

    spine = length(facing.lower_spine, facing.upper_spine)
    if there_n1v is not None and there_n1v.shape[2] > 1:
        shoulders = _SHOULDERS_TO_SPINE * length(facing.left_shoulder, facing.right_shoulder)
        spine = torch.where(spine.isnan(), shoulders, spine)
    return torch.where(spine > 1e-3, spine, 1.0)  # not a number is not greater


def _valid(clips: Clips) -> Tensor:
    return frame_mask(clips.lengths, clips.x.shape[2])[:, None, :, None, None]


def _minmax(x_nctvm: Tensor, seen: Tensor) -> Tensor:
    """Map each coordinate's range over the clip's seen joints to -1..1; a flat one becomes 0."""
    over = (2, 3, 4)
    low = torch.where(seen, x_nctvm, torch.inf).amin(over, keepdim=True)
    high = torch.where(seen, x_nctvm, -torch.inf).amax(over, keepdim=True)
    spread = high - low
    scaled = torch.where(spread > 1e-6, 2 * (x_nctvm - low) / spread.clamp(min=1e-6) - 1, 0.0)
    return torch.where(seen, scaled, 0.0)
