"""Augmentations: batched tensor functions whose parameters, one set a clip, come from one `Draws`."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.data.views.axes import channels_last, pick, with_space
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout

Share = Annotated[float, Field(ge=0, le=1)]


class AugmentConfig(Config):
    """How strongly a view is changed; the defaults change nothing.

    crop         take a random part of each clip, at least this share of its frames (1: all of them)
    rotate       up to so many degrees about x, y and z
    shear        off-diagonal entries of the shear up to this
    scale        a factor of 1 up to +- this
    flip         probability of a left-right mirror image
    reverse      probability of playing the clip backwards
    noise        standard deviation of the noise on x, y and z, in their unit (metres unless scaled)
    mask_joints  probability that a joint is zero throughout the clip
    mask_frames  probability that a frame is zero
    """

    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    rotate: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shear: Annotated[float, Field(ge=0)] = 0.0
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.0
    flip: Share = 0.0
    reverse: Share = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.0
    mask_joints: Annotated[float, Field(ge=0, lt=1)] = 0.0
    mask_frames: Annotated[float, Field(ge=0, lt=1)] = 0.0


def draw_window(config: AugmentConfig, draws: Draws) -> Tensor | None:
    """Where the crop of each clip of the global batch begins and how long it is, as shares (N, 2)."""
    if config.crop == 1.0:
        return None
    start, share = draws.uniform_of_all(), draws.uniform_of_all()
    return torch.stack([start, config.crop + (1 - config.crop) * share], dim=1)


def check_augment(layout: Layout, config: AugmentConfig) -> None:
    """Raise UserError when clips shall be flipped, but the layout does not say what is left and right."""
    if config.flip and not layout.mirror:
        raise UserError(
            f"augment.flip: the layout {layout.name} does not say which joints are left and right (its key "
            "'mirror'); set it to 0"
        )


def draw_turn(config: AugmentConfig, draws: Draws) -> Tensor | None:
    """Rotation after shear after scale, a matrix (N, 3, 3) for every clip."""
    if not (any(config.rotate) or config.shear or config.scale):
        return None
    limit = torch.tensor(config.rotate) * (math.pi / 180)
    rotation = rotation_matrix(_both_ways(draws.uniform(3)) * limit)
    off_diagonal = _both_ways(draws.uniform(3, 3)) * config.shear * (1 - torch.eye(3))
    factor = 1 + _both_ways(draws.uniform(1, 1)) * config.scale
    return rotation @ (torch.eye(3) + off_diagonal) * factor


def augment(clips: Clips, layout: Layout, config: AugmentConfig, draws: Draws) -> Clips:
    """Change positions (N, C, T, V, M): flip, reverse, add noise, in this order, after `draw_turn`'s turn.

    The first three coordinates are x, y and z. Others, such as a confidence, only follow their joint: to its
    partner when flipped, to its frame when reversed.
    """
    x_nctvm, seen = clips.x, clips.seen
    if config.flip:
        chosen = _chosen(config.flip, draws).to(x_nctvm.device)
        x_nctvm = torch.where(chosen, mirror(x_nctvm, layout), x_nctvm)
        if seen.shape[3] > 1:
            seen = torch.where(chosen, pick(seen, layout.mirror_order), seen)
    if config.reverse:
        chosen = _chosen(config.reverse, draws).to(x_nctvm.device)
        x_nctvm = torch.where(chosen, reverse(x_nctvm, clips.lengths), x_nctvm)
        seen = torch.where(chosen, reverse(seen, clips.lengths), seen)
    clips = replace(clips, x=x_nctvm, mask=seen)
    if config.noise:
        place = x_nctvm[:, :3]
        noise = draws.normal(*place.shape[1:]).to(place.device)
        clips = clips.with_x(with_space(x_nctvm, clips.clear_(place + config.noise * noise)))
    return clips


def draw_masks(frames: int, joints: int, config: AugmentConfig, draws: Draws) -> list[Tensor]:
    """What is left of clips of T frames and V joints: bool (N, 1, 1, V, 1), (N, 1, T, 1, 1), or neither."""
    masks = []
    if config.mask_joints:
        masks.append(draws.uniform(1, 1, joints, 1) >= config.mask_joints)
    if config.mask_frames:
        masks.append(draws.uniform(1, frames, 1, 1) >= config.mask_frames)
    return masks


def mask(clips: Clips, masks: Sequence[Tensor]) -> Clips:
    """Hide joints and frames of any stream (N, C, T, V, M): the last step of a view."""
    x_nctvm = clips.x
    for kept in masks:
        x_nctvm = x_nctvm * kept.to(x_nctvm.device)
    return clips.with_x(x_nctvm)


def mirror(x_nctvm: Tensor, layout: Layout) -> Tensor:
    """The left-right mirror image: x changes its sign, left and right joints change places."""
    image = pick(x_nctvm, layout.mirror_order)
    image[:, 0].neg_()
    return image


def reverse(x_nctvm: Tensor, lengths: Tensor) -> Tensor:
    """Play the valid frames of (N, C, T, V, M) backwards; the padding stays where it is."""
    x_nmtvc = channels_last(x_nctvm)
    n, m, frames = x_nmtvc.shape[:3]
    step_nt = torch.arange(frames, device=x_nctvm.device).expand(n, frames)
    source_nt = torch.where(frame_mask(lengths, frames), lengths[:, None] - 1 - step_nt, step_nt)
    body_nm1 = torch.arange(n * m, device=x_nctvm.device).view(n, m, 1) * frames
    rows = (body_nm1 + source_nt[:, None]).flatten()
    return channels_last(x_nmtvc.flatten(0, 2).index_select(0, rows).view(x_nmtvc.shape))


def rotation_matrix(angles_n3: Tensor) -> Tensor:
    """The rotation R_z R_y R_x (N, 3, 3) by the angles (N, 3), in radians, about x, y and z."""
    (sx, sy, sz), (cx, cy, cz) = angles_n3.sin().unbind(1), angles_n3.cos().unbind(1)
    rows = [
        torch.stack([cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx], dim=1),
        torch.stack([sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx], dim=1),
        torch.stack([-sy, cy * sx, cy * cx], dim=1),
    ]
    return torch.stack(rows, dim=1)


def _both_ways(share: Tensor) -> Tensor:
    """Numbers from 0 to 1 as numbers from -1 to 1."""
    return 2 * share - 1


def _chosen(probability: float, draws: Draws) -> Tensor:
    return (draws.uniform() < probability)[:, None, None, None, None]
