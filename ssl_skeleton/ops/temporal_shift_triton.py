# ruff: noqa: ANN001, ANN202, N803, PLR0917 (Triton's own manner: kernels take pointers, sizes and constants)
"""The adaptive temporal shift on a GPU. Imported when it is first used, since it needs Triton.

A program covers many frames of a line of channels of one joint: its lanes look at different frames, and what
one leaves of a sector, another uses soon after from the cache. Bytes moved: forward, the features in and out;
backward, the gradient in and out, and the features. The gradient is gathered, not scattered: frame f hears
from step t where f = t * stride + floor(offset) or one more, so that there is no atomic operation, and the
same bits in every run. What is gathered so, times the features, is also the gradient of the offsets.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_FRAMES = 64  # in a tile, at most


@triton.jit
def _between(x, frame, part, joint, here, channel, T, V, C, WIDE: tl.constexpr):
    """The features between `frame` and the next, at one joint a channel."""
    place = (frame * V + joint) * C + channel
    here = here & (joint >= 0) & (joint < V)
    low = tl.load(x + place, mask=here & (frame >= 0) & (frame < T), other=0).to(WIDE)
    high = tl.load(x + place + V * C, mask=here & (frame >= -1) & (frame < T - 1), other=0).to(WIDE)
    return low * (1 - part) + high * part


@triton.jit
def _forward(
    x,
    frames,
    joints,
    out,
    T,
    V,
    C,
    STEPS,
    STRIDE: tl.constexpr,
    ACROSS: tl.constexpr,
    WIDE: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
):
    clip = (tl.program_id(0) // V).to(tl.int64)
    joint = tl.program_id(0) % V
    step = tl.program_id(1) * BT + tl.arange(0, BT)[:, None]
    channel = tl.program_id(2) * BC + tl.arange(0, BC)[None, :]
    here = (step < STEPS) & (channel < C)
    x += clip * T * V * C
    moved = tl.load(frames + channel, mask=channel < C, other=0).to(WIDE)
    low = tl.floor(moved)
    frame = step * STRIDE + low.to(tl.int32)
    if ACROSS:
        aside = tl.load(joints + channel, mask=channel < C, other=0).to(WIDE)
        left = tl.floor(aside)
        near = joint + left.to(tl.int32)
        value = _between(x, frame, moved - low, near, here, channel, T, V, C, WIDE) * (1 - aside + left)
        value += _between(x, frame, moved - low, near + 1, here, channel, T, V, C, WIDE) * (aside - left)
    else:
        value = _between(x, frame, moved - low, joint, here, channel, T, V, C, WIDE)
    tl.store(out + clip * STEPS * V * C + (step * V + joint) * C + channel, value, mask=here)


@triton.jit
def _passed(grad, ahead, joint, here, channel, V, C, STEPS, STRIDE: tl.constexpr, WIDE: tl.constexpr):
    """The gradient of the step that looks `ahead` frames past the first step's place, where there is one."""
    step = ahead // STRIDE
    here = here & (ahead >= 0) & (ahead % STRIDE == 0) & (step < STEPS) & (joint >= 0) & (joint < V)
    return tl.load(grad + (step * V + joint) * C + channel, mask=here, other=0).to(WIDE)


@triton.jit
def _backward(
    grad,
    x,
    frames,
    joints,
    grad_x,
    frame_sums,
    joint_sums,
    T,
    V,
    C,
    STEPS,
    STRIDE: tl.constexpr,
    ACROSS: tl.constexpr,
    WIDE: tl.constexpr,
    BT: tl.constexpr,
    BC: tl.constexpr,
):
    clip = (tl.program_id(0) // V).to(tl.int64)
    joint = tl.program_id(0) % V
    frame = tl.program_id(1) * BT + tl.arange(0, BT)[:, None]
    channel = tl.program_id(2) * BC + tl.arange(0, BC)[None, :]
    here = (frame < T) & (channel < C)
    grad += clip * STEPS * V * C
    place = clip * T * V * C + (frame * V + joint) * C + channel
    value = tl.load(x + place, mask=here, other=0).to(WIDE)
    moved = tl.load(frames + channel, mask=channel < C, other=0).to(WIDE)
    low = tl.floor(moved)
    part = moved - low
    ahead = frame - low.to(tl.int32)
    sums = (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * C + channel
    if ACROSS:
        aside = tl.load(joints + channel, mask=channel < C, other=0).to(WIDE)
        left = tl.floor(aside)
        share = aside - left
        near = joint - left.to(tl.int32)
        here_low = _passed(grad, ahead, near, here, channel, V, C, STEPS, STRIDE, WIDE)
        here_high = _passed(grad, ahead - 1, near, here, channel, V, C, STEPS, STRIDE, WIDE)
        next_low = _passed(grad, ahead, near - 1, here, channel, V, C, STEPS, STRIDE, WIDE)
        next_high = _passed(grad, ahead - 1, near - 1, here, channel, V, C, STEPS, STRIDE, WIDE)
        lows = here_low * (1 - share) + next_low * share
        highs = here_high * (1 - share) + next_high * share
        slope = (next_low - here_low) * (1 - part) + (next_high - here_high) * part
        tl.store(joint_sums + sums, tl.sum(value * slope, axis=0, keep_dims=True), mask=channel < C)
    else:
        lows = _passed(grad, ahead, joint, here, channel, V, C, STEPS, STRIDE, WIDE)
        highs = _passed(grad, ahead - 1, joint, here, channel, V, C, STEPS, STRIDE, WIDE)
    tl.store(grad_x + place, lows * (1 - part) + highs * part, mask=here)
    tl.store(frame_sums + sums, tl.sum(value * (highs - lows), axis=0, keep_dims=True), mask=channel < C)


@torch.library.custom_op("ssl_skeleton::temporal_shift", mutates_args=())
def shifted(x_ktvc: Tensor, frames_c: Tensor, joints_c: Tensor | None, stride: int) -> Tensor:
    """What `temporal_shift` says, of offsets no further than a little past the edge."""
    x_ktvc = x_ktvc.contiguous()
    out_ktvc = _stepped(x_ktvc, stride)
    pointers = (x_ktvc, frames_c.contiguous(), _or(joints_c, frames_c), out_ktvc)
    _launch(_forward, pointers, x_ktvc, out_ktvc, out_ktvc.shape[1], stride, joints_c is not None)
    return out_ktvc


@torch.library.custom_op("ssl_skeleton::temporal_shift_backward", mutates_args=())
def _pulled(
    grad_ktvc: Tensor, x_ktvc: Tensor, frames_c: Tensor, joints_c: Tensor | None, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the features, of the offsets in frames, and of those in joints (empty without any)."""
    grad_ktvc, x_ktvc = grad_ktvc.contiguous(), x_ktvc.contiguous()
    clips, frames, joints, channels = x_ktvc.shape
    programs = clips * joints * triton.cdiv(frames, _block(frames))
    frame_sums_pc = frames_c.new_empty(programs, channels)
    joint_sums_pc = frames_c.new_empty(programs, channels if joints_c is not None else 0)
    grad_x_ktvc = torch.empty_like(x_ktvc)
    offsets = (frames_c.contiguous(), _or(joints_c, frames_c))
    pointers = (grad_ktvc, x_ktvc, *offsets, grad_x_ktvc, frame_sums_pc, joint_sums_pc)
    _launch(_backward, pointers, x_ktvc, grad_ktvc, frames, stride, joints_c is not None)
    return grad_x_ktvc, frame_sums_pc.sum(0), joint_sums_pc.sum(0)


def _launch(kernel, pointers, x_ktvc, out_ktvc, covered, stride, across):
    """Run a kernel whose tiles cover so many frames or steps; nothing, where there is no value."""
    if not x_ktvc.numel():
        return
    clips, frames, joints, channels = x_ktvc.shape
    width = min(max(128 // x_ktvc.element_size(), 1), triton.next_power_of_2(channels))  # a line of memory
    height = _block(covered)
    grid = (clips * joints, triton.cdiv(covered, height), triton.cdiv(channels, width))
    wide = tl.float64 if x_ktvc.dtype == torch.float64 else tl.float32
    with torch.cuda.device_of(x_ktvc):  # Triton launches on the current GPU, which may be another
        kernel[grid](
            *pointers, frames, joints, channels, out_ktvc.shape[1], stride, across, wide, BT=height, BC=width
        )


def _block(frames: int) -> int:
    return min(_FRAMES, 1 << (frames - 1).bit_length())


def _or(offset_c: Tensor | None, other_c: Tensor) -> Tensor:
    """A pointer that the kernel does not follow, where there is no offset."""
    return other_c if offset_c is None else offset_c.contiguous()


def _stepped(x_ktvc: Tensor, stride: int) -> Tensor:
    clips, frames, joints, channels = x_ktvc.shape
    return x_ktvc.new_empty(clips, (frames + stride - 1) // stride, joints, channels)


@shifted.register_fake
def _(x_ktvc, frames_c, joints_c, stride):
    return _stepped(x_ktvc, stride)


@_pulled.register_fake
def _(grad_ktvc, x_ktvc, frames_c, joints_c, stride):
    return (
        x_ktvc.new_empty(x_ktvc.shape),
        torch.empty_like(frames_c),
        frames_c.new_empty(0 if joints_c is None else frames_c.shape),
    )


def _keep(ctx, inputs, output):
    *tensors, ctx.stride = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx, grad_ktvc):
    x_ktvc, frames_c, joints_c = ctx.saved_tensors
    grad_x_ktvc, grad_frames_c, grad_joints_c = _pulled(grad_ktvc, x_ktvc, frames_c, joints_c, ctx.stride)
    return grad_x_ktvc, grad_frames_c, None if joints_c is None else grad_joints_c, None


shifted.register_autograd(_gradients, setup_context=_keep)
