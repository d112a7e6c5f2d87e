# ruff: noqa: ANN001, ANN202, N803, PLR0917 (Triton's own manner: kernels take pointers, sizes and constants)
"""The spatial graph shift on a GPU. Imported when it is first used, since it needs Triton.

A program covers all joints of a line of channels, so that every sector it reads is used up within it, though
the lanes of one load look at different joints. Bytes moved: forward, the features in and out; backward, the
gradient in and out, and the features once more for the gradient of the scale. The gradient is gathered, not
scattered: no atomic operation, and the same bits in every run.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_PLACES = 2048  # in a tile: enough for all joints of a line of memory, few enough for the registers
_ROWS = 32  # frames a program, over which it keeps its indices in registers


@triton.jit
def _forward(
    x,
    index,
    scale,
    out,
    rows,
    V,
    C,
    SCALED: tl.constexpr,
    WIDE: tl.constexpr,
    BV: tl.constexpr,
    BC: tl.constexpr,
):
    joint = tl.arange(0, BV)[:, None]
    channel = tl.program_id(1) * BC + tl.arange(0, BC)[None, :]
    here = (joint < V) & (channel < C)
    place = joint * C + channel
    source = tl.load(index + place, mask=here, other=-1)
    valid = (source >= 0) & (source < V * C)  # a bad index must not read foreign memory
    if SCALED:
        factor = tl.load(scale + place, mask=here, other=0).to(WIDE)
    row = tl.program_id(0).to(tl.int64) * V * C
    stride = tl.num_programs(0).to(tl.int64) * V * C
    for _ in range(tl.program_id(0), rows, tl.num_programs(0)):
        value = tl.load(x + row + source, mask=valid, other=0)
        if SCALED:
            value = value.to(WIDE) * factor
        tl.store(out + row + place, value, mask=here)
        row += stride


@triton.jit
def _backward(
    grad,
    x,
    takers,
    scale,
    grad_x,
    sums,
    rows,
    V,
    C,
    D,
    SCALED: tl.constexpr,
    WIDE: tl.constexpr,
    BD: tl.constexpr,
    BV: tl.constexpr,
    BC: tl.constexpr,
):
    slot = tl.arange(0, BD)[:, None, None]
    joint = tl.arange(0, BV)[None, :, None]
    channel = tl.program_id(1) * BC + tl.arange(0, BC)[None, None, :]
    here = (joint < V) & (channel < C)
    place = joint * C + channel
    taker = tl.load(takers + place * D + slot, mask=here & (slot < D), other=-1)
    valid = taker >= 0
    if SCALED:
        factor = tl.load(scale + taker, mask=valid, other=0).to(WIDE)
        total = tl.zeros((BD, BV, BC), WIDE)
    row = tl.program_id(0).to(tl.int64) * V * C
    stride = tl.num_programs(0).to(tl.int64) * V * C
    for _ in range(tl.program_id(0), rows, tl.num_programs(0)):
        passed = tl.load(grad + row + taker, mask=valid, other=0).to(WIDE)
        if SCALED:
            total += passed * tl.load(x + row + place, mask=here, other=0).to(WIDE)
            passed = passed * factor
        tl.store(grad_x + row + place, tl.sum(passed, axis=0, keep_dims=True), mask=here)
        row += stride
    if SCALED:
        # Each place takes from one place, so that no two lanes write the same sum.
        tl.store(sums + tl.program_id(0).to(tl.int64) * V * C + taker, total, mask=valid)


@torch.library.custom_op("ssl_skeleton::graph_shift", mutates_args=())
def shifted(x_ktvc: Tensor, index_i: Tensor, takers_id: Tensor, scale_vc: Tensor | None) -> Tensor:
    """What `graph_shift` says, with tanh(mask) + 1 as the scale; `takers_id` serves the gradient."""
    x_ktvc = x_ktvc.contiguous()
    out_ktvc = torch.empty_like(x_ktvc)
    scale = x_ktvc if scale_vc is None else scale_vc.contiguous()
    _launch(_forward, x_ktvc, 1, (x_ktvc, index_i.contiguous(), scale, out_ktvc), (), scale_vc is not None)
    return out_ktvc


@torch.library.custom_op("ssl_skeleton::graph_shift_backward", mutates_args=())
def _pulled(
    grad_ktvc: Tensor, x_ktvc: Tensor | None, takers_id: Tensor, scale_vc: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradients of the features and of the scale; features and scale come both or not at all."""
    grad_ktvc = grad_ktvc.contiguous()
    grad_x_ktvc = torch.empty_like(grad_ktvc)
    slots = takers_id.shape[1]
    if x_ktvc is None or scale_vc is None:
        pointers = (grad_ktvc, grad_ktvc, takers_id.contiguous(), grad_ktvc, grad_x_ktvc, grad_ktvc)
        _launch(_backward, grad_ktvc, slots, pointers, (slots,), False)
        return grad_x_ktvc, grad_ktvc.new_empty(0)
    sums_pvc = scale_vc.new_empty(_programs(grad_ktvc), *scale_vc.shape)
    pointers = (
        grad_ktvc,
        x_ktvc.contiguous(),
        takers_id.contiguous(),
        scale_vc.contiguous(),
        grad_x_ktvc,
        sums_pvc,
    )
    _launch(_backward, grad_ktvc, slots, pointers, (slots,), True)
    return grad_x_ktvc, sums_pvc.sum(0)


def _launch(kernel, x_ktvc, slots, pointers, numbers, scaled):
    """Run a kernel over all rows; nothing, where there is no value."""
    if not x_ktvc.numel():
        return
    joints, channels = x_ktvc.shape[2:]
    depth, height = triton.next_power_of_2(slots), triton.next_power_of_2(joints)
    line = max(128 // x_ktvc.element_size(), 1)  # channels in a line of memory
    width = min(line, triton.next_power_of_2(channels), max(_PLACES // (depth * height), 8))
    blocks = {"BV": height, "BC": width} | ({"BD": depth} if kernel is _backward else {})
    grid = (_programs(x_ktvc), triton.cdiv(channels, width))
    rows = x_ktvc.shape[0] * x_ktvc.shape[1]
    wide = tl.float64 if x_ktvc.dtype == torch.float64 else tl.float32
    with torch.cuda.device_of(x_ktvc):  # Triton launches on the current GPU, which may be another
        kernel[grid](*pointers, rows, joints, channels, *numbers, scaled, wide, **blocks)


def _programs(x_ktvc: Tensor) -> int:
    """Programs that share the rows."""
    return -(-x_ktvc.shape[0] * x_ktvc.shape[1] // _ROWS)


@shifted.register_fake
def _(x_ktvc, index_i, takers_id, scale_vc):
    return x_ktvc.new_empty(x_ktvc.shape)


@_pulled.register_fake
def _(grad_ktvc, x_ktvc, takers_id, scale_vc):
    return grad_ktvc.new_empty(grad_ktvc.shape), grad_ktvc.new_empty(
        0
    ) if scale_vc is None else torch.empty_like(scale_vc)


def _keep(ctx, inputs, output):
    x_ktvc, _, takers_id, scale_vc = inputs
    ctx.save_for_backward(None if scale_vc is None else x_ktvc, takers_id, scale_vc)


def _gradients(ctx, grad_ktvc):
    x_ktvc, takers_id, scale_vc = ctx.saved_tensors
    grad_x_ktvc, grad_scale = _pulled(grad_ktvc, x_ktvc, takers_id, scale_vc)
    return grad_x_ktvc, None, None, None if scale_vc is None else grad_scale


shifted.register_autograd(_gradients, setup_context=_keep)
