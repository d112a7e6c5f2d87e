"""The adaptive temporal shift of Shift-GCN (Cheng et al., CVPR 2020, section 3.3.2).

Every channel looks a learned real number of frames ahead or back, between two frames by linear interpolation.
The operation that it was made from, the active shift (Jeon and Kim, NeurIPS 2018), moves along both axes of a
picture, and published weights hold offsets in joints too: with them it interpolates between four places.
"""

from functools import reduce

import torch
from torch import Tensor

from ssl_skeleton.ops.kernel import Kernel, use_triton


def temporal_shift(
    x_ktvc: Tensor,
    frames_c: Tensor,
    joints_c: Tensor | None = None,
    *,
    stride: int = 1,
    kernel: Kernel = "auto",
) -> Tensor:
    """Step t of channel c takes the value at frame t * stride + frames_c[c] and joint v + joints_c[c].

    What lies between frames (and joints) is interpolated linearly, and is zero beyond the first and the last.
    The gradient of an offset is the slope there; at a whole number, the slope ahead. Published weights want
    0.5 added to the offsets in frames wherever the stride is not 1: that is for the caller to do.

    Args:
        x_ktvc: features (K, T, V, C); any strides, though channels last saves a copy. Frames past a clip's
            length should be zero.
        frames_c: offsets in frames (C,), any real numbers.
        joints_c: offsets along the list of joints (C,); None is none, which costs half as much as zeros.
        stride: frames from one step to the next.
        kernel: see `use_triton`.

    Returns:
        (K, ceil(T / stride), V, C), contiguous, of the type of `x_ktvc` also under autocast. Offsets are read
        in float32 at least.

    Raises ValueError when the offsets do not fit the features, or for a stride below 1.
    """
    _, frames, joints, channels = x_ktvc.shape
    if stride < 1:
        raise ValueError(f"a stride should be at least 1, not {stride}")
    frames_c = _offsets(frames_c, frames, channels, x_ktvc.dtype)
    if joints_c is not None:
        joints_c = _offsets(joints_c, joints, channels, x_ktvc.dtype)
    if use_triton(kernel, x_ktvc):
        from ssl_skeleton.ops.temporal_shift_triton import shifted  # noqa: PLC0415 (loads Triton)

        out_ktvc: Tensor = shifted(x_ktvc, frames_c, joints_c, stride)
        return out_ktvc
    return _shifted(x_ktvc, frames_c, joints_c, stride)


def _offsets(offset_c: Tensor, size: int, channels: int, dtype: torch.dtype) -> Tensor:
    """Offsets that can be turned into places: beyond the edge by more than a step all is zero, and flat."""
    if offset_c.shape != (channels,):
        raise ValueError(f"offsets {tuple(offset_c.shape)} do not fit {channels} channels")
    return offset_c.to(torch.promote_types(dtype, torch.float32)).clamp(-size - 1, size + 1)


def _shifted(x_ktvc: Tensor, frames_c: Tensor, joints_c: Tensor | None, stride: int) -> Tensor:
    """The reference. Along one flat axis a clip, index_select is torch's fastest gather on CPUs."""
    clips, frames, joints, channels = x_ktvc.shape
    steps = torch.arange(0, frames, stride, device=x_ktvc.device)
    every = torch.arange(joints, device=x_ktvc.device)
    channel_c = torch.arange(channels, device=x_ktvc.device)
    across = [(every[:, None], None)] if joints_c is None else _sides(every, joints_c, joints)
    x_ki = x_ktvc.flatten(1)
    parts = []
    for frame_tc, share_tc in _sides(steps, frames_c, frames):
        for joint_vc, part_vc in across:
            place_tvc = (frame_tc[:, None] * joints + joint_vc) * channels + channel_c
            share_tvc = share_tc[:, None] if part_vc is None else share_tc[:, None] * part_vc
            taken_ktvc = x_ki.index_select(1, place_tvc.flatten()).view(clips, *place_tvc.shape)
            parts.append(taken_ktvc * share_tvc.to(x_ktvc.dtype))
    return reduce(torch.add, parts)


def _sides(places_p: Tensor, offset_c: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two places (P, C) between which each place comes to lie, and their shares (P, C): zero outside."""
    low_c = offset_c.detach().floor()
    above_c = offset_c - low_c
    sides = []
    for step, share_c in ((0, 1 - above_c), (1, above_c)):
        place_pc = places_p[:, None] + low_c.long() + step
        inside_pc = (place_pc >= 0) & (place_pc < size)
        sides.append((place_pc.clamp(0, size - 1), share_c * inside_pc))
    return sides
