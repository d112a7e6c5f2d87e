"""What holds for every layout that comes with the package."""

import json

import numpy as np
import pytest
import torch

from ssl_skeleton.data.views.normalise import facing_rotation
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.graph import adjacency, hop_distance
from ssl_skeleton.skeleton.layout import COMMON_NAMES, Layout, Spot, layout_names, load_layout, names_of
from ssl_skeleton.skeleton.remap import remap_matrix

JOINTS = {
    "coco_17": 17,
    "common_15": 15,
    "florence_15": 15,
    "kinect_v1_20": 20,
    "kinect_v2_25": 25,
    "mediapipe_33": 33,
    "mocap_31": 31,
    "openni_15": 15,
    "openpose_18": 18,
    "openpose_25": 25,
}

# The bones as their makers draw them, by the numbers of the joints.
EDGES = {
    "kinect_v1_20": "0-1 1-2 2-3 2-4 4-5 5-6 6-7 2-8 8-9 9-10 10-11 0-12 12-13 13-14 14-15 0-16 16-17 17-18 "
    "18-19",
    "kinect_v2_25": "0-1 1-20 20-2 2-3 20-4 4-5 5-6 6-7 7-21 6-22 20-8 8-9 9-10 10-11 11-23 10-24 0-12 12-13 "
    "13-14 14-15 0-16 16-17 17-18 18-19",
    "openpose_25": "1-8 1-2 1-5 2-3 3-4 5-6 6-7 8-9 9-10 10-11 8-12 12-13 13-14 1-0 0-15 15-17 0-16 16-18 "
    "14-19 19-20 14-21 11-22 22-23 11-24",
    "openpose_18": "1-2 1-5 2-3 3-4 5-6 6-7 1-8 8-9 9-10 1-11 11-12 12-13 1-0 0-14 14-16 0-15 15-17",
    "coco_17": "15-13 13-11 16-14 14-12 11-12 5-11 6-12 5-6 5-7 6-8 7-9 8-10 1-2 0-1 0-2 1-3 2-4 3-5 4-6",
    "mediapipe_33": "0-1 1-2 2-3 3-7 0-4 4-5 5-6 6-8 9-10 11-12 11-13 13-15 15-17 15-19 15-21 17-19 12-14 "
    "14-16 16-18 16-20 16-22 18-20 11-23 12-24 23-24 23-25 24-26 25-27 26-28 27-29 28-30 29-31 30-32 27-31 "
    "28-32",
}
# Where the left side is, and what bones cannot tell apart, in the makers' lists of joints.
KNOWN = {
    "kinect_v1_20": "0 hip_center, 3 head, 4 left_shoulder, 12 left_hip",
    "kinect_v2_25": "0 base_spine, 3 head, 4 left_shoulder, 12 left_hip, 21 left_hand_tip, 22 left_thumb",
    "openpose_25": "0 nose, 5 left_shoulder, 12 left_hip, 16 left_eye",
    "openpose_18": "0 nose, 5 left_shoulder, 11 left_hip, 15 left_eye",
    "coco_17": "0 nose, 1 left_eye, 5 left_shoulder, 11 left_hip",
    "mediapipe_33": "0 nose, 2 left_eye, 9 left_mouth, 11 left_shoulder, 17 left_pinky, 19 left_index, "
    "21 left_thumb, 23 left_hip, 29 left_heel, 31 left_foot_index",
    "openni_15": "0 head, 1 neck, 2 torso, 3 left_shoulder, 4 left_elbow, 5 left_hand, 6 right_shoulder, "
    "7 right_elbow, 8 right_hand, 9 left_hip, 10 left_knee, 11 left_foot, 12 right_hip, 13 right_knee, "
    "14 right_foot",
    "florence_15": "0 head, 1 neck, 2 spine, 3 left_shoulder, 4 left_elbow, 5 left_wrist, 6 right_shoulder, "
    "7 right_elbow, 8 right_wrist, 9 left_hip, 10 left_knee, 11 left_ankle, 12 right_hip, 13 right_knee, "
    "14 right_ankle",
}
# Bones that join what their makers leave apart, since a layout is one tree.
JOINING = {
    "coco_17": {"left_shoulder", "right_shoulder"},
    "mediapipe_33": {"left_shoulder", "right_shoulder", "left_mouth", "right_mouth"},
}

# The bones of CMU's and HDM05's .asf files: their order, and each parent with its children.
ASF_ORDER = """
root lhipjoint lfemur ltibia lfoot ltoes rhipjoint rfemur rtibia rfoot rtoes
lowerback upperback thorax lowerneck upperneck head
lclavicle lhumerus lradius lwrist lhand lfingers lthumb
rclavicle rhumerus rradius rwrist rhand rfingers rthumb"""
ASF_HIERARCHY = """
root lhipjoint rhipjoint lowerback
lhipjoint lfemur
lfemur ltibia
ltibia lfoot
lfoot ltoes
rhipjoint rfemur
rfemur rtibia
rtibia rfoot
rfoot rtoes
lowerback upperback
upperback thorax
thorax lowerneck lclavicle rclavicle
lowerneck upperneck
upperneck head
lclavicle lhumerus
lhumerus lradius
lradius lwrist
lwrist lhand lthumb
lhand lfingers
rclavicle rhumerus
rhumerus rradius
rradius rwrist
rwrist rhand rthumb
rhand rfingers"""

# A person who stands and looks at the camera, arms down: metres, y up, z away from the camera. Left is at the
# smaller x; the right side is its mirror image.
MIDDLE = {
    "pelvis hip_center base_spine mid_hip root": (0.0, 1.0, 0.0),
    "spine lowerback": (0.0, 1.12, 0.0),
    "torso mid_spine": (0.0, 1.2, 0.0),
    "upperback": (0.0, 1.28, 0.0),
    "neck thorax upper_spine shoulder_center": (0.0, 1.46, 0.0),
    "lowerneck": (0.0, 1.5, 0.0),
    "upperneck": (0.0, 1.55, 0.0),
    "head": (0.0, 1.66, 0.0),
    "nose": (0.0, 1.63, -0.12),
}
LEFT = {
    "eye_inner": (-0.02, 1.67, -0.1),
    "eye": (-0.03, 1.67, -0.1),
    "eye_outer": (-0.05, 1.67, -0.09),
    "ear": (-0.08, 1.65, 0.0),
    "mouth": (-0.02, 1.58, -0.1),
    "shoulder clavicle": (-0.18, 1.43, 0.0),
    "elbow humerus": (-0.24, 1.14, 0.02),
    "radius": (-0.27, 0.99, -0.02),
    "wrist": (-0.28, 0.9, -0.04),
    "hand": (-0.29, 0.82, -0.06),
    "hand_tip fingers": (-0.29, 0.75, -0.07),
    "thumb": (-0.26, 0.83, -0.09),
    "pinky": (-0.31, 0.81, -0.05),
    "index": (-0.28, 0.8, -0.07),
    "hip hipjoint": (-0.1, 0.95, 0.0),
    "knee femur": (-0.11, 0.52, -0.01),
    "ankle tibia": (-0.11, 0.1, 0.02),
    "foot": (-0.12, 0.04, -0.07),
    "heel": (-0.11, 0.03, 0.07),
    "big_toe toes foot_index": (-0.11, 0.01, -0.17),
    "small_toe": (-0.16, 0.01, -0.13),
}
POSE = {name: place for names, place in MIDDLE.items() for name in names.split()}
POSE |= {f"left_{name}": place for names, place in LEFT.items() for name in names.split()}
POSE |= {f"right_{name}": (-x, y, z) for names, (x, y, z) in LEFT.items() for name in names.split()}
HIGHER_NECK = {"kinect_v2_25": {"neck": "lowerneck"}}  # Kinect v2 has a neck above the upper spine


def pose(layout: Layout) -> np.ndarray:
    """That person as the layout has it, (V, 3)."""
    meant = HIGHER_NECK.get(layout.name, {})
    return np.array([POSE[meant.get(joint, joint)] for joint in layout.joints], dtype=np.float32)


@pytest.fixture(params=layout_names())
def layout(request: pytest.FixtureRequest) -> Layout:
    return load_layout(request.param)


def test_known_layouts_have_their_joints():
    assert {name: len(load_layout(name).joints) for name in layout_names()} == JOINTS


def test_the_file_is_named_like_the_layout(layout):
    assert load_layout(layout.name) is layout


def test_a_layout_outlives_its_file(layout):
    tree = json.loads(json.dumps(layout.to_tree()))
    assert Layout.from_tree(tree, "meta.json") == layout


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


def mirrored(layout: Layout, spot: Spot) -> set[str]:
    return {layout.joints[layout.mirror_order[place]] for place in layout.indices(spot)}


def test_facing_names_mirror_pairs_and_a_spine(layout):
    facing = layout.facing
    assert layout.mirror[facing.left_hip] == facing.right_hip
    assert layout.mirror[facing.left_shoulder] == facing.right_shoulder
    for middle in (facing.lower_spine, facing.upper_spine, layout.center or layout.root):
        assert mirrored(layout, middle) == set(names_of(middle))
    assert facing.lower_spine != facing.upper_spine


def test_common_places_are_mirror_images(layout):
    for name in COMMON_NAMES:
        side, _, joint = name.partition("_")
        other = f"{'right' if side == 'left' else 'left'}_{joint}" if joint else name
        assert (name in layout.common) == (other in layout.common)
        if name in layout.common:
            assert mirrored(layout, layout.common[name]) == set(names_of(layout.common[other]))


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


@pytest.mark.parametrize("name", EDGES)
def test_bones_are_those_of_their_makers(name):
    layout = load_layout(name)
    edges = {frozenset(map(int, edge.split("-"))) for edge in EDGES[name].split()}
    assert set().union(*edges) == set(range(JOINTS[name]))
    strange = {
        child
        for child, parent in layout.bones.items()
        if {layout.index(child), layout.index(parent)} not in edges
    }
    assert strange == JOINING.get(name, set())


@pytest.mark.parametrize("name", KNOWN)
def test_joints_stand_where_their_makers_put_them(name):
    layout = load_layout(name)
    for known in KNOWN[name].split(", "):
        place, joint = known.split()
        assert layout.index(joint) == int(place)


def test_motion_capture_has_the_bones_of_its_files():
    def ours(name: str) -> str:
        sides = {"l": "left_", "r": "right_"}
        middle = name in ("root", "lowerback", "lowerneck")
        return name if middle or name[0] not in sides else sides[name[0]] + name[1:]

    layout = load_layout("mocap_31")
    assert layout.joints == tuple(map(ours, ASF_ORDER.split()))
    lines = [line.split() for line in ASF_HIERARCHY.split("\n")[1:]]
    assert layout.bones == {ours(child): ours(line[0]) for line in lines for child in line[1:]}


def test_bones_are_as_long_as_those_of_a_person(layout):
    pose_vc = pose(layout)
    length_v = np.linalg.norm(pose_vc - pose_vc[list(layout.parents)], axis=1)
    bones = np.arange(len(length_v)) != layout.index(layout.root)
    assert length_v[bones].min() > 0.005
    assert length_v[bones].max() < 0.6


def test_who_looks_at_the_camera_need_not_be_turned(layout):
    pose_ncv = torch.from_numpy(pose(layout)).T[None]
    rotation_ncd = facing_rotation(pose_ncv, layout, upright=True)
    torch.testing.assert_close(rotation_ncd, torch.eye(3)[None], atol=0.05, rtol=0)
    about = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))  # seen from behind
    assert (facing_rotation(about @ pose_ncv, layout, upright=False)[:, 0, 0] < -0.99).all()


def test_every_body_has_the_common_joints(layout):
    assert remap_matrix(layout, load_layout("common_15")).shape == (15, len(layout.joints))


def test_a_body_gives_itself(layout):
    assert np.array_equal(remap_matrix(layout, layout), np.eye(len(layout.joints)))


@pytest.mark.parametrize("name", layout_names())
def test_a_joint_stays_in_its_place_from_body_to_body(layout, name):
    target = load_layout(name)
    try:
        matrix = remap_matrix(layout, target)
    except UserError:
        assert name != "common_15"
        return
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-6)
    away_v = np.linalg.norm(matrix @ pose(layout) - pose(target), axis=1)
    assert dict(zip(target.joints, away_v.tolist(), strict=True)) == pytest.approx(
        dict.fromkeys(target.joints, 0), abs=0.13
    )
    left = [target.index(joint) for joint in target.mirror]
    assert ((matrix @ pose(layout))[left, 0] < 0).all()
