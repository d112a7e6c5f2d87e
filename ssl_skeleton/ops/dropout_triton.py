# ruff: noqa: ANN001, ANN202, N803, PLR0917 (Triton's own manner: kernels take pointers, sizes and constants)
"""Dropout by rows on a GPU. Imported when it is first used, since it needs Triton.

A number is drawn from the seed of its row and its place in the row by Philox 4x32-10 (Salmon et al., SC
2011), which has no state. So the backward pass draws again what the forward pass drew, and no mask is kept: a
pass reads the features and writes them, and that is all. A program draws four numbers at once.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function

_LANES = 256


@triton.jit
def _drop_some(x, out, draw, place, SIZE, P: tl.constexpr, WIDE: tl.constexpr):
    value = tl.load(x + place, mask=place < SIZE, other=0).to(WIDE)
    tl.store(out + place, tl.where(draw < P, 0.0, value / (1 - P)), mask=place < SIZE)


@triton.jit
def _drop(x, seeds, out, SIZE, P: tl.constexpr, WIDE: tl.constexpr, LANES: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    x += row * SIZE
    out += row * SIZE
    lane = tl.arange(0, LANES)
    place = tl.program_id(1) * 4 * LANES + lane
    one, two, three, four = tl.rand4x(tl.load(seeds + row), tl.program_id(1) * LANES + lane)
    _drop_some(x, out, one, place, SIZE, P, WIDE)
    _drop_some(x, out, two, place + LANES, SIZE, P, WIDE)
    _drop_some(x, out, three, place + 2 * LANES, SIZE, P, WIDE)
    _drop_some(x, out, four, place + 3 * LANES, SIZE, P, WIDE)


def dropped(x: Tensor, seeds_k: Tensor, share: float) -> Tensor:
    """Features (K, ...), a share of them zero and the rest times 1 / (1 - share), by int64 seeds (K,)."""
    out: Tensor = _Dropped.apply(x, seeds_k, share)
    return out


class _Dropped(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seeds_k: Tensor, share: float) -> Tensor:
        ctx.save_for_backward(seeds_k)
        ctx.share = share
        return _launched(x, seeds_k, share)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (seeds_k,) = ctx.saved_tensors
        return _launched(gradients[0], seeds_k, ctx.share), None, None


def _launched(x: Tensor, seeds_k: Tensor, share: float) -> Tensor:
    x = x.contiguous()
    out = torch.empty_like(x)
    if x.numel():
        size = x.numel() // len(x)
        wide = tl.float64 if x.dtype == torch.float64 else tl.float32
        _drop[len(x), triton.cdiv(size, 4 * _LANES)](x, seeds_k, out, size, share, wide, _LANES)
    return out
