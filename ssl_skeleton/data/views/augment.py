"""Augmentations: batched tensor functions whose parameters, one set a clip, come from one generator."""

import math
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Generator, Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.data.views.normalise import with_space
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


def draw_window(clips: int, config: AugmentConfig, generator: Generator) -> Tensor | None:
    """Where each clip's crop begins and how long it is, as shares (N, 2) for `PackedClips.gather`."""
    if config.crop == 1.0:
        return None
    start, share = torch.rand(2, clips, generator=generator)
    return torch.stack([start, config.crop + (1 - config.crop) * share], dim=1)


def check_augment(layout: Layout, config: AugmentConfig) -> None:
    """Raise UserError when clips shall be flipped, but the layout does not say what is left and right."""
    if config.flip and not layout.mirror:
        raise UserError(
            f"augment.flip: the layout {layout.name} does not say which joints are left and right (its key "
            "'mirror'); set it to 0"
        )


def augment(clips: Clips, layout: Layout, config: AugmentConfig, generator: Generator) -> Clips:
    """Change positions (N, C, T, V, M): rotate, shear, scale, flip, reverse, add noise, in this order.

    The first three coordinates are x, y and z. Others, such as a confidence, only follow their joint: to its
    partner when flipped, to its frame when reversed.
    """
    x_nctvm, seen = clips.x, clips.seen
    if any(config.rotate) or config.shear or config.scale:
        matrix_ncd = _linear_map(len(clips), config, generator).to(x_nctvm.device)
        x_nctvm = with_space(x_nctvm, torch.einsum("ncd,ndtvm->nctvm", matrix_ncd, x_nctvm[:, :3]))
    if config.flip:
        chosen = _chosen(len(clips), config.flip, generator).to(x_nctvm.device)
        x_nctvm = torch.where(chosen, mirror(x_nctvm, layout), x_nctvm)
        if seen.shape[3] > 1:
            seen = torch.where(chosen, seen[:, :, :, list(layout.mirror_order)], seen)
    if config.reverse:
        chosen = _chosen(len(clips), config.reverse, generator).to(x_nctvm.device)
        x_nctvm = torch.where(chosen, reverse(x_nctvm, clips.lengths), x_nctvm)
        seen = torch.where(chosen, reverse(seen, clips.lengths), seen)
    if config.noise:
        place = x_nctvm[:, :3]
        noise = torch.randn(place.shape, generator=generator).to(place.device)
        x_nctvm = with_space(x_nctvm, torch.where(seen, place + config.noise * noise, 0.0))
    return replace(clips, x=x_nctvm, mask=seen)


def mask(clips: Clips, config: AugmentConfig, generator: Generator) -> Clips:
    """Hide joints and frames of any stream (N, C, T, V, M): the last step of a view."""
    x_nctvm = clips.x
    n, _, t, v, _ = x_nctvm.shape
    if config.mask_joints:
        kept = torch.rand(n, 1, 1, v, 1, generator=generator) >= config.mask_joints
        x_nctvm = x_nctvm * kept.to(x_nctvm.device)
    if config.mask_frames:
        kept = torch.rand(n, 1, t, 1, 1, generator=generator) >= config.mask_frames
        x_nctvm = x_nctvm * kept.to(x_nctvm.device)
    return clips.with_x(x_nctvm)


def mirror(x_nctvm: Tensor, layout: Layout) -> Tensor:
    """The left-right mirror image: x changes its sign, left and right joints change places."""
    flipped = x_nctvm[:, :, :, list(layout.mirror_order)]
    return torch.cat([-flipped[:, :1], flipped[:, 1:]], dim=1)


def reverse(x_nctvm: Tensor, lengths: Tensor) -> Tensor:
    """Play the valid frames of (N, C, T, V, M) backwards; the padding stays where it is."""
    frames = x_nctvm.shape[2]
    step_nt = torch.arange(frames, device=x_nctvm.device).expand(len(x_nctvm), frames)
    source_nt = torch.where(frame_mask(lengths, frames), lengths[:, None] - 1 - step_nt, step_nt)
    return x_nctvm.gather(2, source_nt[:, None, :, None, None].expand_as(x_nctvm))


def rotation_matrix(angles_n3: Tensor) -> Tensor:
    """The rotation R_z R_y R_x (N, 3, 3) by the angles (N, 3), in radians, about x, y and z."""
    (sx, sy, sz), (cx, cy, cz) = angles_n3.sin().unbind(1), angles_n3.cos().unbind(1)
    rows = [
        torch.stack([cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx], dim=1),
        torch.stack([sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx], dim=1),
        torch.stack([-sy, cy * sx, cy * cx], dim=1),
    ]
    return torch.stack(rows, dim=1)


def _linear_map(clips: int, config: AugmentConfig, generator: Generator) -> Tensor:
    """Rotation after shear after scale, (N, 3, 3)."""
    limit = torch.tensor(config.rotate) * (math.pi / 180)
    rotation = rotation_matrix(_uniform((clips, 3), generator) * limit)
    off_diagonal = _uniform((clips, 3, 3), generator) * config.shear * (1 - torch.eye(3))
    factor = 1 + _uniform((clips, 1, 1), generator) * config.scale
    return rotation @ (torch.eye(3) + off_diagonal) * factor


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return 2 * torch.rand(shape, generator=generator) - 1


def _chosen(clips: int, probability: float, generator: Generator) -> Tensor:
    return (torch.rand(clips, generator=generator) < probability)[:, None, None, None, None]
