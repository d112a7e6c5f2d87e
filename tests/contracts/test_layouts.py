"""What holds for every layout that comes with the package."""

import pytest
import torch

from ssl_skeleton.skeleton.graph import adjacency, hop_distance
from ssl_skeleton.skeleton.layout import Layout, layout_names, load_layout

JOINTS = {"kinect_v1_20": 20, "kinect_v2_25": 25}


@pytest.fixture(params=layout_names())
def layout(request: pytest.FixtureRequest) -> Layout:
    return load_layout(request.param)


def test_known_layouts_have_their_joints():
    assert {name: len(load_layout(name).joints) for name in JOINTS} == JOINTS


def test_the_file_is_named_like_the_layout(layout):
    assert load_layout(layout.name) is layout


def test_every_joint_reaches_the_root(layout):
    root = layout.index(layout.root)
    assert layout.parents[root] == root
    above = list(layout.parents)
    for _ in layout.joints:
        above = [layout.parents[joint] for joint in above]
    assert set(above) == {root}


def test_a_mirror_twice_is_none_and_keeps_the_bones(layout):
    order = layout.mirror_order
    assert [order[joint] for joint in order] == list(range(len(order)))
    assert order[layout.index(layout.root)] == layout.index(layout.root)
    for joint, parent in enumerate(layout.parents):
        assert layout.parents[order[joint]] == order[parent]


def test_mirror_pairs_are_the_left_and_the_right(layout):
    assert layout.mirror
    for left, right in layout.mirror.items():
        assert left.startswith("left_")
        assert right == left.replace("left_", "right_", 1)
    sided = {joint for joint in layout.joints if joint.startswith(("left_", "right_"))}
    assert sided == {*layout.mirror, *layout.mirror.values()}


def test_facing_names_mirror_pairs_and_a_spine(layout):
    facing = layout.facing
    assert layout.mirror[facing.left_hip] == facing.right_hip
    assert layout.mirror[facing.left_shoulder] == facing.right_shoulder
    for spine in (facing.lower_spine, facing.upper_spine):
        assert layout.mirror_order[layout.index(spine)] == layout.index(spine)
    assert facing.lower_spine != facing.upper_spine


def test_the_graph_is_a_tree(layout):
    matrix_vv, joints = adjacency(layout), len(layout.joints)
    assert torch.equal(matrix_vv, matrix_vv.T)
    assert matrix_vv.diagonal().sum() == 0
    assert set(matrix_vv.unique().tolist()) == {0.0, 1.0}
    assert matrix_vv.sum() == 2 * (joints - 1)
    distance_vv = hop_distance(layout)
    assert torch.equal(distance_vv == 1, matrix_vv == 1)
    assert torch.equal(distance_vv == 0, torch.eye(joints, dtype=torch.bool))
    assert distance_vv.max() < joints
