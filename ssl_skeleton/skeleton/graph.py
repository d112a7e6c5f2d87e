"""The graph of a layout: adjacency and distances, derived from its bones."""

import torch
from torch import Tensor

from ssl_skeleton.skeleton.layout import Layout


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
