"""The graph of a layout: adjacency, distances and neighbourhoods, derived from its bones."""

from typing import Literal

import torch
from torch import Tensor

from ssl_skeleton.skeleton.layout import Layout

Partition = Literal["uniform", "distance", "spatial"]
Normalisation = Literal["mean", "symmetric"]


def adjacency(layout: Layout) -> Tensor:
    """Symmetric adjacency without self-loops, float32 (V, V): 1 where a bone joins two joints."""
    matrix_vv = torch.zeros(len(layout.joints), len(layout.joints))
    for child, parent in enumerate(layout.parents):
        if child != parent:
            matrix_vv[child, parent] = matrix_vv[parent, child] = 1.0
    return matrix_vv


def hop_distance(layout: Layout) -> Tensor:
    """The number of bones on the path between every two joints, int64 (V, V)."""
    neighbours_vv = adjacency(layout) > 0
    reached_vv = torch.eye(len(layout.joints), dtype=torch.bool)
    distance_vv = torch.zeros(reached_vv.shape, dtype=torch.int64)
    while not reached_vv.all():  # a layout is a tree, so every joint is reached
        distance_vv += ~reached_vv
        reached_vv = reached_vv | (reached_vv.float() @ neighbours_vv.float() > 0)
    return distance_vv


def partitions(layout: Layout, partition: Partition, reach: int = 1) -> Tensor:
    """The joints within `reach` bones of every joint, in P parts, float32 (P, V, V) of 0 and 1.

    Row w holds the joints that joint w hears. The parts, after ST-GCN (arXiv 1801.07455, Section 3.3):
    `uniform` is all of them; `distance` those 0, 1, ... `reach` bones away; `spatial` those as far from the
    root as joint w (itself among them), those nearer (centripetal) and those farther (centrifugal).
    """
    hops_vv = hop_distance(layout)
    near_vv = hops_vv <= reach
    if partition == "uniform":
        parts = [near_vv]
    elif partition == "distance":
        parts = [hops_vv == hops for hops in range(reach + 1)]
    else:
        height_v = hops_vv[layout.index(layout.root)]
        other_vv, own_vv = height_v[None, :], height_v[:, None]
        parts = [near_vv & (other_vv == own_vv), near_vv & (other_vv < own_vv), near_vv & (other_vv > own_vv)]
    return torch.stack(parts).float()


def normalised(matrix_vv: Tensor, normalisation: Normalisation) -> Tensor:
    """Matrices (..., V, V), each divided by its degrees; a joint without neighbours stays at zero.

    `mean` is D^-1 A: a joint hears the mean of its neighbours. `symmetric` is D^-1/2 A D^-1/2 (Kipf and
    Welling, arXiv 1609.02907); of a directed part, the left D holds the degrees of the rows, the right D
    those of the columns.
    """
    heard_v1 = matrix_vv.sum(dim=-1, keepdim=True).clamp(min=1)
    if normalisation == "mean":
        return matrix_vv / heard_v1
    hearers_1v = matrix_vv.sum(dim=-2, keepdim=True).clamp(min=1)
    return matrix_vv / (heard_v1 * hearers_1v).sqrt()
