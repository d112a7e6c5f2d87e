"""Where a body stands, where it looks and how tall it is say little about its motion: take them out."""

from typing import Literal

import torch
from torch import Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips, body_mask, frame_mask
from ssl_skeleton.skeleton.layout import Layout


class NormaliseConfig(Config):
    """What is taken out of the coordinates, in this order.

    The leading body is the first one seen in the first frame in which any is seen; all bodies are moved,
    turned and scaled as one.

    center  `first_frame` moves the leading body's root in that frame to the origin, `each_frame` does so in
            every frame (which also takes the path walked out).
    facing  turns the clip so that, in that frame, the leading body looks along -z: `yaw` about the vertical
            alone, `body` also makes its spine upright.
    scale   `torso` divides by the length of the leading body's spine in that frame, `minmax` maps each
            coordinate's range in the clip to -1..1.
    """

    center: Literal["none", "first_frame", "each_frame"] = "first_frame"
    facing: Literal["none", "yaw", "body"] = "body"
    scale: Literal["none", "torso", "minmax"] = "none"


def normalise(clips: Clips, layout: Layout, config: NormaliseConfig) -> Clips:
    """Clips (N, 3, T, V, M) with the nuisances named in `config` taken out; absent bodies stay zero."""
    x_nctvm = clips.x
    seen = body_mask(x_nctvm)
    pose_ncv = _first_pose(x_nctvm, seen)
    if config.center != "none":
        x_nctvm = x_nctvm - _origin(x_nctvm, seen, pose_ncv, layout, config.center)
    if config.facing != "none":
        rotation_ncd = facing_rotation(pose_ncv, layout, upright=config.facing == "body")
        x_nctvm = torch.einsum("ncd,ndtvm->nctvm", rotation_ncd, x_nctvm)
    if config.scale == "torso":
        x_nctvm = x_nctvm / _torso_length(pose_ncv, layout)[:, None, None, None, None]
    x_nctvm = torch.where(seen, x_nctvm, 0.0)
    if config.scale == "minmax":
        x_nctvm = _minmax(x_nctvm, seen & _valid(clips))
    return clips.with_x(x_nctvm)


def facing_rotation(pose_ncv: Tensor, layout: Layout, *, upright: bool) -> Tensor:
    """The rotation (N, 3, 3) that turns a pose (N, 3, V) to look along -z, its left at the smaller x.

    `upright` also turns its spine to +y; else the vertical stays as it is. A pose without hips and
    shoulders (all zero, say) gets the identity.
    """
    facing = layout.facing

    def joint(name: str) -> Tensor:
        return pose_ncv[:, :, layout.index(name)]

    hips = joint(facing.right_hip) - joint(facing.left_hip)
    shoulders = joint(facing.right_shoulder) - joint(facing.left_shoulder)
    vertical = torch.tensor([0.0, 1.0, 0.0], dtype=pose_ncv.dtype, device=pose_ncv.device).expand(
        len(pose_ncv), 3
    )
    up = joint(facing.upper_spine) - joint(facing.lower_spine) if upright else vertical
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


def _first_pose(x_nctvm: Tensor, seen: Tensor) -> Tensor:
    """The leading body (N, C, V): the first one seen in the first frame in which any is seen."""
    seen_ntm = seen[:, 0, :, 0].to(torch.uint8)
    each_n = torch.arange(len(x_nctvm), device=x_nctvm.device)
    first_n = seen_ntm.amax(dim=2).argmax(dim=1)
    return x_nctvm[each_n, :, first_n, :, seen_ntm[each_n, first_n].argmax(dim=1)]


def _origin(x_nctvm: Tensor, seen: Tensor, pose_ncv: Tensor, layout: Layout, center: str) -> Tensor:
    """The point that becomes zero, (N, C, 1 or T, 1, 1)."""
    root = layout.index(layout.root)
    if center == "first_frame":
        return pose_ncv[:, :, root, None, None, None]
    first_seen = seen.to(torch.uint8).argmax(dim=4, keepdim=True)  # (N, 1, T, 1, 1): who leads each frame
    roots = x_nctvm[:, :, :, root : root + 1]
    return roots.gather(4, first_seen.expand(-1, roots.shape[1], -1, -1, -1))


def _torso_length(pose_ncv: Tensor, layout: Layout) -> Tensor:
    """The length of the spine (N,) in metres; 1 where there is none."""
    upper, lower = layout.index(layout.facing.upper_spine), layout.index(layout.facing.lower_spine)
    length = (pose_ncv[:, :, upper] - pose_ncv[:, :, lower]).norm(dim=1)
    return torch.where(length > 1e-3, length, 1.0)


def _valid(clips: Clips) -> Tensor:
    return frame_mask(clips.lengths, clips.x.shape[2])[:, None, :, None, None]


def _minmax(x_nctvm: Tensor, seen: Tensor) -> Tensor:
    """Map each coordinate's range over the clip's seen bodies to -1..1; a flat one becomes 0."""
    over = (2, 3, 4)
    low = torch.where(seen, x_nctvm, torch.inf).amin(over, keepdim=True)
    high = torch.where(seen, x_nctvm, -torch.inf).amax(over, keepdim=True)
    spread = high - low
    scaled = torch.where(spread > 1e-6, 2 * (x_nctvm - low) / spread.clamp(min=1e-6) - 1, 0.0)
    return torch.where(seen, scaled, 0.0)
