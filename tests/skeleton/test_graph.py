from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.skeleton.graph import adjacency, hop_distance
from ssl_skeleton.skeleton.layout import Layout


@st.composite
def trees(draw: st.DrawFn) -> Layout:
    """A layout whose bones are any tree, its joints in any order."""
    names = draw(st.permutations([f"j{i}" for i in range(draw(st.integers(1, 12)))]))
    bones = {names[i]: names[draw(st.integers(0, i - 1))] for i in range(1, len(names))}
    sides = ("left_hip", "right_hip", "left_shoulder", "right_shoulder", "lower_spine", "upper_spine")
    facing = dict.fromkeys(sides, names[0])
    tree = {"name": "any", "joints": sorted(names), "bones": bones, "mirror": {}, "root": names[0]}
    return Layout.from_tree({**tree, "facing": facing}, "here")


def hops_from(start: int, layout: Layout) -> list[int]:
    """Breadth first, over the bones by name."""
    pairs = [{layout.index(child), layout.index(parent)} for child, parent in layout.bones.items()]
    hops, queue = {start: 0}, deque([start])
    while queue:
        joint = queue.popleft()
        for other in set().union(*(pair for pair in pairs if joint in pair)) - hops.keys():
            hops[other] = hops[joint] + 1
            queue.append(other)
    return [hops[joint] for joint in range(len(layout.joints))]


@given(trees())
@settings(max_examples=50, deadline=None)
def test_hop_distance_is_that_of_a_walk(layout):
    distance_vv = hop_distance(layout)
    assert distance_vv.dtype == torch.int64
    assert distance_vv.tolist() == [hops_from(joint, layout) for joint in range(len(layout.joints))]


@given(trees())
@settings(max_examples=50, deadline=None)
def test_adjacency_holds_each_bone_both_ways(layout):
    matrix_vv = adjacency(layout)
    pairs = {(layout.index(child), layout.index(parent)) for child, parent in layout.bones.items()}
    wanted = pairs | {(parent, child) for child, parent in pairs}
    assert {tuple(pair) for pair in matrix_vv.nonzero().tolist()} == wanted
    assert matrix_vv.sum().item() == pytest.approx(2 * len(pairs))
