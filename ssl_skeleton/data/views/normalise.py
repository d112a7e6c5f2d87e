"""Where a body stands, where it looks and how tall it is say little about its motion: take them out."""

from typing import Literal

import torch
from torch import Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Facing, Layout, Spot


class NormaliseConfig(Config):
    """What is taken out of the coordinates, in this order.

    The leading body is the first one seen in the first frame in which any is seen; all bodies are moved,
    turned and scaled as one.

    center  `first_frame` moves the leading body's root (its layout's `center`, if that names one) in that
            frame to the origin, `each_frame` does so in every frame (which also takes the path walked out).
    facing  turns the clip so that, in that frame, the leading body looks along -z: `yaw` about the vertical
            alone, `body` also makes its spine upright.
    scale   `torso` divides by the length of the leading body's spine in that frame, `minmax` maps each
            coordinate's range in the clip to -1..1.
    """

    center: Literal["none", "first_frame", "each_frame"] = "first_frame"
    facing: Literal["none", "yaw", "body"] = "body"
    scale: Literal["none", "torso", "minmax"] = "none"


def check_normalise(layout: Layout, config: NormaliseConfig) -> None:
    """Raise UserError when `config` needs to know where a body looks, and the layout does not tell."""
    if config.facing != "none":
        _facing(layout, "facing")
    if config.scale == "torso":
        _facing(layout, "scale")


def normalise(clips: Clips, layout: Layout, config: NormaliseConfig) -> Clips:
    """Clips (N, C, T, V, M) with the nuisances named in `config` taken out; what is not seen stays zero.

    The first three coordinates are x, y and z; others stay as they are. Raises UserError as `check_normalise`
    does.
    """
    if (config.center, config.facing, config.scale) == ("none", "none", "none"):
        return clips
    x_nctvm, seen = clips.x[:, :3], clips.seen
    pose_ncv = _first_pose(x_nctvm, seen, layout)
    if config.center != "none":
        x_nctvm = x_nctvm - _origin(x_nctvm, seen, pose_ncv, layout, config.center)
        x_nctvm = torch.where(seen, x_nctvm, 0.0)  # nothing that follows moves a zero
    if config.facing != "none":
        rotation_ncd = facing_rotation(pose_ncv, layout, upright=config.facing == "body")
        x_nctvm = torch.einsum("ncd,ndtvm->nctvm", rotation_ncd, x_nctvm)
    if config.scale == "torso":
        x_nctvm = x_nctvm / _torso_length(pose_ncv, layout)[:, None, None, None, None]
    if config.scale == "minmax":
        x_nctvm = _minmax(x_nctvm, seen & _valid(clips))
    return clips.with_x(with_space(clips.x, x_nctvm))


def with_space(x_nctvm: Tensor, space_nctvm: Tensor) -> Tensor:
    """Coordinates (N, C, T, V, M) whose x, y and z, the first three, are replaced by (N, 3, T, V, M)."""
    return torch.cat([space_nctvm, x_nctvm[:, 3:]], dim=1) if x_nctvm.shape[1] > 3 else space_nctvm


def facing_rotation(pose_ncv: Tensor, layout: Layout, *, upright: bool) -> Tensor:
    """The rotation (N, 3, 3) that turns a pose (N, 3, V) to look along -z, its left at the smaller x.

    `upright` also turns its spine to +y; else the vertical stays as it is. A pose without hips and
    shoulders (all zero, say) gets the identity. Raises UserError when the layout has no `facing`.
    """
    facing = _facing(layout, "facing")

    def point(spot: Spot) -> Tensor:
        return _mean_joint(pose_ncv[:, :, list(layout.indices(spot))], dim=2)

    hips = point(facing.right_hip) - point(facing.left_hip)
    shoulders = point(facing.right_shoulder) - point(facing.left_shoulder)
    vertical = torch.tensor([0.0, 1.0, 0.0], dtype=pose_ncv.dtype, device=pose_ncv.device).expand(
        len(pose_ncv), 3
    )
    up = point(facing.upper_spine) - point(facing.lower_spine) if upright else vertical
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


def _first_pose(x_nctvm: Tensor, seen: Tensor, layout: Layout) -> Tensor:
    """The leading body (N, C, V): the first one seen in the first frame in which any is seen.

    Where joints are missing, it is taken where those that tell its place and direction are seen, if anywhere.
    """
    seen_ntm = seen[:, 0].any(dim=2).to(torch.uint8)
    if seen.shape[3] > 1:
        spots = [layout.center or layout.root, *(dict(layout.facing).values() if layout.facing else ())]
        needed = [joint for spot in spots for joint in layout.indices(spot)]
        seen_ntm += seen[:, 0, :, needed].all(dim=2)
    each_n = torch.arange(len(x_nctvm), device=x_nctvm.device)
    first_n = seen_ntm.amax(dim=2).argmax(dim=1)
    return x_nctvm[each_n, :, first_n, :, seen_ntm[each_n, first_n].argmax(dim=1)]


def _origin(x_nctvm: Tensor, seen: Tensor, pose_ncv: Tensor, layout: Layout, center: str) -> Tensor:
    """The point that becomes zero, (N, C, 1 or T, 1, 1)."""
    places = list(layout.indices(layout.center or layout.root))
    if center == "first_frame":
        return _mean_joint(pose_ncv[:, :, places], dim=2)[:, :, None, None, None]
    first_seen = (
        seen.any(dim=3, keepdim=True).to(torch.uint8).argmax(dim=4, keepdim=True)
    )  # (N, 1, T, 1, 1): who leads each frame
    centers = _mean_joint(x_nctvm[:, :, :, places], dim=3)[:, :, :, None]
    return centers.gather(4, first_seen.expand(-1, centers.shape[1], -1, -1, -1))


def _mean_joint(joints: Tensor, dim: int) -> Tensor:
    """The mean over the axis `dim` of those joints (N, C, ...) that are there; one exactly at zero is not."""
    if joints.shape[dim] == 1:
        return joints.squeeze(dim)
    there = (joints != 0).any(dim=1, keepdim=True)
    return joints.sum(dim) / there.sum(dim).clamp(min=1)


def _facing(layout: Layout, key: str) -> Facing:
    if layout.facing is None:
        raise UserError(
            f"data.normalise.{key}: the layout {layout.name} does not say which joints tell where a body "
            "looks (its key 'facing'); set it to none"
        )
    return layout.facing


def _torso_length(pose_ncv: Tensor, layout: Layout) -> Tensor:
    """The length of the spine (N,) in metres; 1 where there is none."""
    facing = _facing(layout, "scale")
    upper, lower = (
        _mean_joint(pose_ncv[:, :, list(layout.indices(spot))], dim=2)
        for spot in (facing.upper_spine, facing.lower_spine)
    )
    length = (upper - lower).norm(dim=1)
    return torch.where(length > 1e-3, length, 1.0)


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
