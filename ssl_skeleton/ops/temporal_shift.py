"""The adaptive temporal shift of Shift-GCN (Cheng et al., CVPR 2020, section 3.3.2).

Every channel looks a learned real number of frames ahead or back, between two frames by linear interpolation.
The operation that it was made from, the active shift (Jeon and Kim, NeurIPS 2018), moves along both axes of a
picture, and published weights hold offsets in joints too: with them it interpolates between four places.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ssl_skeleton.ops.kernel import Kernel, use_triton

_REACH = 16  # places: beyond it, a convolution has too many weights to be fast


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
    """The reference: one axis after the other."""
    out_ktvc = _moved(x_ktvc, frames_c, 1, stride)
    return out_ktvc if joints_c is None else _moved(out_ktvc, joints_c, 2, 1)


def _moved(x_ktvc: Tensor, offset_c: Tensor, dim: int, stride: int) -> Tensor:
    """The shift along one axis."""
    if x_ktvc.device.type != "cpu" or torch.compiler.is_compiling():
        return _gathered(x_ktvc, offset_c, dim, stride)
    low_c = offset_c.detach().floor()
    reach = max(float(-low_c.amin()), float(low_c.amax()) + 1)
    if not reach <= _REACH:  # nor is an offset that is no number
        return _gathered(x_ktvc, offset_c, dim, stride)
    return _convolved(x_ktvc, offset_c, dim, stride, int(reach))


def _gathered(x_ktvc: Tensor, offset_c: Tensor, dim: int, stride: int) -> Tensor:
    """Between every place and the next first; then each channel is taken from where it looks."""
    low_c = offset_c.detach().floor()
    pad = (0, 0) * (3 - dim) + (2, 1)  # two before the first, so that between them lies a zero to look at
    padded_ktvc = functional.pad(x_ktvc, pad)
    size = x_ktvc.shape[dim] + 2
    left_ktvc, right_ktvc = padded_ktvc.narrow(dim, 0, size), padded_ktvc.narrow(dim, 1, size)
    between_ktvc = torch.lerp(left_ktvc, right_ktvc, (offset_c - low_c).to(x_ktvc.dtype))
    step_p = torch.arange(0, x_ktvc.shape[dim], stride, device=x_ktvc.device)
    place_pc = step_p[:, None] + low_c.long() + 2
    place_pc = torch.where((place_pc >= 0) & (place_pc < size), place_pc, 0)
    place_ktvc = place_pc[None, :, None] if dim == 1 else place_pc[None, None]
    shape = [*x_ktvc.shape]
    shape[dim] = step_p.shape[0]  # which, unlike its len, a compiler need not know
    return between_ktvc.gather(dim, place_ktvc.expand(shape))


def _convolved(x_ktvc: Tensor, offset_c: Tensor, dim: int, stride: int, reach: int) -> Tensor:
    """The same as a convolution of every channel by itself, which CPUs do many times as fast.

    Its weights are the shares of the places at most `reach` away. Only whoever may look at the offsets knows
    how many those are: no compiled graph.
    """
    ahead_cw = torch.arange(-reach, reach + 1) - offset_c.detach().floor()[:, None]
    high_c1 = (offset_c + ahead_cw[:, reach])[:, None]
    share_cw = torch.where(ahead_cw == 0, 1 - high_c1, 0) + torch.where(ahead_cw == 1, high_c1, 0)
    # The gradient of a strided convolution takes ten times as long in bfloat16.
    wide = x_ktvc.dtype if stride == 1 else torch.promote_types(x_ktvc.dtype, torch.float32)
    weight = share_cw.to(wide)[:, None, :, None]
    strides, padding = (stride, 1), (reach, 0)
    if dim == 2:
        weight, strides, padding = weight.transpose(2, 3), (1, stride), (0, reach)
    with torch.autocast("cpu", enabled=False):
        x_kctv = x_ktvc.to(wide).permute(0, 3, 1, 2)  # channels last in memory
        out_kctv = functional.conv2d(x_kctv, weight, None, strides, padding, groups=len(weight))
    return out_kctv.permute(0, 2, 3, 1).to(x_ktvc.dtype).contiguous()
