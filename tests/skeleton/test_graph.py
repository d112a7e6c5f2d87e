from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.skeleton.graph import adjacency, hop_distance, normalised, partitions
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


def part_of(layout: Layout, partition: str, reach: int, own: int, other: int) -> int | None:
    """The part in which joint `own` hears joint `other`."""
    hops, root = hops_from(own, layout), hops_from(layout.index(layout.root), layout)
    if hops[other] > reach:
        return None
    if partition == "spatial":
        return 0 if root[other] == root[own] else 1 if root[other] < root[own] else 2
    return hops[other] if partition == "distance" else 0


@pytest.mark.parametrize("partition", ["uniform", "distance", "spatial"])
@given(layout=trees(), reach=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_a_joint_hears_each_near_joint_in_one_part(partition, layout, reach):
    matrix_pvv = partitions(layout, partition, reach)
    joints = range(len(layout.joints))
    assert len(matrix_pvv) == {"uniform": 1, "distance": reach + 1, "spatial": 3}[partition]
    for own in joints:
        for other in joints:
            part = part_of(layout, partition, reach, own, other)
            expected = [float(part == number) for number in range(len(matrix_pvv))]
            assert matrix_pvv[:, own, other].tolist() == expected


@given(layout=trees(), reach=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_normalised_divides_by_the_degrees(layout, reach):
    for matrix_vv in partitions(layout, "spatial", reach):
        heard, hearers = matrix_vv.sum(dim=1).tolist(), matrix_vv.sum(dim=0).tolist()
        for own, other in matrix_vv.nonzero().tolist():
            mean = normalised(matrix_vv, "mean")[own, other]
            symmetric = normalised(matrix_vv, "symmetric")[own, other]
            assert mean == pytest.approx(1 / heard[own])
            assert symmetric == pytest.approx((heard[own] * hearers[other]) ** -0.5)
        for normalisation in ("mean", "symmetric"):
            assert not normalised(matrix_vv, normalisation)[matrix_vv == 0].any()


@given(trees())
@settings(max_examples=30, deadline=None)
def test_the_plain_graph_has_spectral_radius_one(layout):
    plain_vv = normalised(partitions(layout, "uniform"), "symmetric")[0]
    assert torch.equal(plain_vv, plain_vv.T)
    assert torch.linalg.eigvalsh(plain_vv.double()).abs().max().item() == pytest.approx(1)
