"""Clips (N, C, T, V, M) by their axes; in memory C comes last, as the gather leaves them, or anywhere."""

from functools import cache

import torch
from torch import Tensor


def channels_last(x_nctvm: Tensor) -> Tensor:
    """A view (N, M, T, V, C) of clips (N, C, T, V, M), and the other way round."""
    return x_nctvm.permute(0, 4, 2, 3, 1)


def turned(x_nctvm: Tensor, matrix_ncd: Tensor) -> Tensor:
    """Every point of clips (N, 3, T, V, M) multiplied by its clip's matrix (N, 3, 3)."""
    x_nmtvc = channels_last(x_nctvm)
    return channels_last((x_nmtvc.flatten(1, 3) @ matrix_ncd.mT).view(x_nmtvc.shape))


def moved(x_nctvm: Tensor, origin: Tensor) -> Tensor:
    """Clips less their origins (N, C, T or 1, 1, 1)."""
    joints = x_nctvm.shape[3]
    # Laid out as the clips are, joints and coordinates become one axis to walk along.
    origin_nmtvc = channels_last(origin.expand(-1, -1, -1, joints, -1)).contiguous()
    return x_nctvm - channels_last(origin_nmtvc)


def with_space(x_nctvm: Tensor, space_nctvm: Tensor) -> Tensor:
    """Coordinates (N, C, T, V, M) whose x, y and z, the first three, are replaced by (N, 3, T, V, M)."""
    return stacked([space_nctvm, x_nctvm[:, 3:]]) if x_nctvm.shape[1] > 3 else space_nctvm


def stacked(parts: list[Tensor]) -> Tensor:
    """Coordinates after one another: clips of all C together."""
    return channels_last(torch.cat([channels_last(part) for part in parts], dim=4))


def pick(x_nctvm: Tensor, joints: tuple[int, ...]) -> Tensor:
    """Clips with one of their joints in the place of each, in new memory."""
    x_nmtvc = channels_last(x_nctvm)
    _, _, _, v, c = x_nmtvc.shape
    # Whole rows are gathered by their columns, which is much faster than so many pieces of C numbers.
    rows = x_nmtvc.reshape(-1, v * c)
    columns = index_of(tuple(c * joint + axis for joint in joints for axis in range(c)), x_nctvm.device)
    return channels_last(rows.gather(1, columns.expand(len(rows), -1)).view(x_nmtvc.shape))


@cache
def index_of(places: tuple[int, ...], device: torch.device) -> Tensor:
    """Places on an axis as an index tensor, made once."""
    return torch.tensor(places, device=device)
