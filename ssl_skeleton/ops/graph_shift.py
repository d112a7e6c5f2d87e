"""The spatial graph shift of Shift-GCN (Cheng et al., CVPR 2020, sections 3.2.1 and 3.2.2).

Joints exchange channels, so that a pointwise product, which alone would see one joint, mixes many:

    graph_shift(x, index_in, mask) @ weight + bias  ->  graph_shift(.., index_out)  ->  BatchNorm over V * C

Features are (K, T, V, C), channels last: the product is then one matrix product over all rows, and the index
lists and the BatchNorm count V * C with the channels fastest, as published weights do.

The GPU kernel fuses gather and mask; the product stays with cuBLAS. Counted, not measured, for an H100
(3.35 TB/s, 990 TFLOP/s, 50 MB of L2) in bfloat16: with C = D = 64 to 256 the product does C / 2 = 32 to 128
FLOPs a byte, and only above 295 would arithmetic bind, so that bytes alone count. Shift and product move 8 a
value, of which a gather within the product would save the 4 between them. A batch has K * T * V * 64 values
in every unit, as T halves where C doubles: 13 MB for K = 64 and T = 64, which stay in L2, and 123 MB for
K = 128 and T = 300, where it would save 73 of 147 us. But all of a unit moves some 60 bytes a value (norms,
temporal shifts, sums, ReLUs): 7 % of it at best. Backward saves less, since the gradient of the weights needs
what was shifted, stored after all or gathered again. Every channel comes from another joint, 2 bytes at a
time, which no asynchronous copy into a product's tiles can do: a kernel at less than half of the bandwidth
that cuBLAS reaches would lose all of it. So it is not expected to pay.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ssl_skeleton.ops.kernel import Kernel, use_triton

_MOST_TAKERS = 16


def graph_shift(
    x_ktvc: Tensor,
    index_i: Tensor,
    mask_vc: Tensor | None = None,
    takers_id: Tensor | None = None,
    *,
    kernel: Kernel = "auto",
) -> Tensor:
    """Place i = v * C + c of every frame takes the value at place index_i[i], times tanh(mask) + 1.

    Args:
        x_ktvc: features (K, T, V, C); any strides, though channels last saves a copy.
        index_i: int64 (V * C,), each in 0 .. V * C - 1, in any order and multiplicity.
        mask_vc: the learned feature mask (V, C), zero for an unchanged value.
        takers_id: `takers(index_i)`, which finds the gradient faster, and which the GPU kernel otherwise
            finds again in every call. It belongs to one index list: one that is loaded needs its own.
        kernel: see `use_triton`. Triton takes the lists that have `takers` alone, torch all others.

    Returns:
        (K, T, V, C), contiguous, of the type of `x_ktvc` also under autocast.

    Raises ValueError when the index list does not fit the features.
    """
    if index_i.shape != (x_ktvc.shape[2] * x_ktvc.shape[3],):
        raise ValueError(f"an index list {tuple(index_i.shape)} does not fit features {tuple(x_ktvc.shape)}")
    scale_vc = None if mask_vc is None else mask_vc.tanh() + 1
    if use_triton(kernel, x_ktvc):
        takers_id = takers(index_i) if takers_id is None else takers_id
        if takers_id.shape[1]:
            from ssl_skeleton.ops.graph_shift_triton import shifted  # noqa: PLC0415 (loads Triton)

            out_ktvc: Tensor = shifted(x_ktvc, index_i, takers_id, scale_vc)
            return out_ktvc
    moved_ktvc = _moved(x_ktvc.flatten(0, 1).flatten(1), index_i, takers_id).view(x_ktvc.shape)
    return moved_ktvc if scale_vc is None else moved_ktvc * scale_vc.to(x_ktvc.dtype)


def _moved(x_ri: Tensor, index_i: Tensor, takers_id: Tensor | None) -> Tensor:
    """The reference: rows (R, V * C), of which a compiler makes its own."""
    if takers_id is None or takers_id.shape[1] != 1 or torch.compiler.is_compiling():
        return x_ri.index_select(1, index_i)
    moved_ri: Tensor = _Permuted.apply(x_ri, index_i, takers_id[:, 0])  # type: ignore[no-untyped-call]
    return moved_ri


class _Permuted(torch.autograd.Function):
    """A list that is a permutation: the gradient is gathered as well, which is faster than adding it up."""

    @staticmethod
    def forward(ctx: Any, x_ri: Tensor, index_i: Tensor, back_i: Tensor) -> Tensor:
        ctx.save_for_backward(back_i)
        return _taken(x_ri, index_i)

    @staticmethod
    def backward(ctx: Any, grad_ri: Tensor) -> tuple[Tensor, None, None]:
        (back_i,) = ctx.saved_tensors
        return _taken(grad_ri, back_i), None, None


def _taken(x_ri: Tensor, index_i: Tensor) -> Tensor:
    """What is fastest on CPUs: index_select of a matrix; for two bytes a value, gather of whole numbers."""
    if x_ri.device.type != "cpu" or x_ri.element_size() != 2:
        return x_ri.index_select(1, index_i)
    return x_ri.view(torch.int16).gather(1, index_i.expand(len(x_ri), -1)).view(x_ri.dtype)


def takers(index_i: Tensor) -> Tensor:
    """Which places take from each place: int64 (V * C, D), filled with -1; the gradient flows along these.

    D is the most that take from one place: 1 for the non-local shift, which is a permutation. Where more than
    16 take from one, as no body's local shift does, D is 0: from places * D numbers nothing would be gained.
    Raises ValueError when the list names a place that is not there.
    """
    if not 0 <= int(index_i.min()) <= int(index_i.max()) < len(index_i):
        raise ValueError(f"an index list of {len(index_i)} places names one that is not there")
    count_i = torch.bincount(index_i, minlength=len(index_i))
    if count_i.max() > _MOST_TAKERS:
        return index_i.new_empty(len(index_i), 0)
    order_i = index_i.argsort(stable=True)
    first_i = count_i.cumsum(0) - count_i
    source_i = index_i[order_i]
    slot_i = torch.arange(len(index_i), device=index_i.device) - first_i[source_i]
    takers_id = index_i.new_full((len(index_i), int(count_i.max())), -1)
    takers_id[source_i, slot_i] = order_i
    return takers_id


def non_local_index(joints: int, channels: int, *, back: bool = False) -> Tensor:
    """The index list (V * C,) of the non-local shift: channel c of joint v comes from joint (v + c) mod V.

    With `back`, from joint (v - c) mod V: what undoes it after the pointwise product.
    """
    step_c = torch.arange(channels) * (-1 if back else 1)
    source_vc = (torch.arange(joints)[:, None] + step_c) % joints
    return _index_of(source_vc)


def local_index(neighbours: Sequence[Sequence[int]], channels: int) -> Tensor:
    """The index list (V * C,) of the local shift: a joint's channels come from itself and its neighbours.

    Joint v with n neighbours cuts its channels into n + 1 parts of C // (n + 1) channels: the first is its
    own, the others come from the neighbours in the order given, the last of which also gives what is left
    over. With fewer channels than parts, each of the first givers gives one.
    """
    source_vc = torch.empty(len(neighbours), channels, dtype=torch.int64)
    for joint, others in enumerate(neighbours):
        givers = torch.tensor([joint, *others])
        part = max(channels // len(givers), 1)
        source_vc[joint] = givers[(torch.arange(channels) // part).clamp(max=len(others))]
    return _index_of(source_vc)


def _index_of(source_vc: Tensor) -> Tensor:
    """From the joint that gives each channel to places v * C + c."""
    channels = source_vc.shape[1]
    return (source_vc * channels + torch.arange(channels)).flatten()
