"""The spatial graph shift of Shift-GCN (Cheng et al., CVPR 2020, sections 3.2.1 and 3.2.2).

Joints exchange channels, so that a pointwise product, which alone would see one joint, mixes many:

    graph_shift(x, index_in, mask) @ weight + bias  ->  graph_shift(.., index_out)  ->  BatchNorm over V * C

Features are (K, T, V, C), channels last: the product is then one matrix product over all rows, and the index
lists and the BatchNorm count V * C with the channels fastest, as published weights do.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_skeleton.ops.kernel import Kernel, use_triton


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
        takers_id: `takers(index_i)`, which the GPU kernel otherwise finds again in every call. It belongs to
            one index list: one that is loaded needs its own.
        kernel: see `use_triton`.

    Returns:
        (K, T, V, C), contiguous, of the type of `x_ktvc` also under autocast.

    Raises ValueError when the index list does not fit the features.
    """
    if index_i.shape != (x_ktvc.shape[2] * x_ktvc.shape[3],):
        raise ValueError(f"an index list {tuple(index_i.shape)} does not fit features {tuple(x_ktvc.shape)}")
    scale_vc = None if mask_vc is None else mask_vc.tanh() + 1
    if use_triton(kernel, x_ktvc):
        from ssl_skeleton.ops.graph_shift_triton import shifted  # noqa: PLC0415 (loads Triton)

        takers_id = takers(index_i) if takers_id is None else takers_id
        out_ktvc: Tensor = shifted(x_ktvc, index_i, takers_id, scale_vc)
        return out_ktvc
    # On CPUs, index_select of a matrix beats gather and indexing, and that of (K, T, I) by far.
    moved_ktvc = x_ktvc.flatten(0, 1).flatten(1).index_select(1, index_i).view(x_ktvc.shape)
    return moved_ktvc if scale_vc is None else moved_ktvc * scale_vc.to(x_ktvc.dtype)


def takers(index_i: Tensor) -> Tensor:
    """Which places take from each place: int64 (V * C, D), filled with -1; the gradient flows along these.

    D is the most that take from one place: 1 for the non-local shift, which is a permutation.
    """
    count_i = torch.bincount(index_i, minlength=len(index_i))
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
