import json

import numpy as np
import pytest
from builders import one_line, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout, load_layout
from ssl_skeleton.skeleton.remap import remap, remap_matrix

SOURCES = ("openpose_25", "coco_17", "kinect_v2_25", "mediapipe_33")


def sources_of(joint: str, source: str, target: str) -> set[str]:
    """The joints that one is made of."""
    source_layout, target_layout = load_layout(source), load_layout(target)
    row = remap_matrix(source_layout, target_layout)[target_layout.index(joint)]
    return {source_layout.joints[place] for place in row.nonzero()[0]}


def plain_remap(frames_rvc: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Joint by joint."""
    out = np.zeros((len(frames_rvc), len(matrix), frames_rvc.shape[2]))
    for r, v in np.ndindex(out.shape[:2]):
        there = [frames_rvc[r, u].astype(float) for u in matrix[v].nonzero()[0] if frames_rvc[r, u].any()]
        out[r, v] = np.mean(there, axis=0) if there else 0
    return out


@pytest.mark.parametrize(
    ("joint", "source", "target", "wanted"),
    [
        ("shoulder_center", "kinect_v2_25", "kinect_v1_20", {"upper_spine"}),
        ("hip_center", "kinect_v2_25", "kinect_v1_20", {"base_spine"}),
        ("spine", "kinect_v2_25", "kinect_v1_20", {"mid_spine"}),
        ("left_hand", "kinect_v2_25", "kinect_v1_20", {"left_hand"}),
        ("neck", "kinect_v2_25", "common_15", {"upper_spine"}),  # not its own joint of that name
        ("neck", "kinect_v2_25", "kinect_v2_25", {"neck"}),
        ("left_wrist", "openni_15", "common_15", {"left_hand"}),
        ("left_hand", "openni_15", "kinect_v1_20", {"left_hand"}),
        ("left_hand", "kinect_v1_20", "openni_15", {"left_hand"}),
        (
            "left_hand",
            "florence_15",
            "openni_15",
            {"left_wrist"},
        ),  # it has no hand, but the hand is the wrist
        ("left_hand", "mediapipe_33", "openni_15", {"left_pinky", "left_index"}),
        ("right_foot", "coco_17", "openni_15", {"right_ankle"}),
        ("pelvis", "coco_17", "common_15", {"left_hip", "right_hip"}),
        ("head", "openpose_25", "common_15", {"left_ear", "right_ear"}),
        ("left_ankle", "mocap_31", "common_15", {"left_tibia"}),
        ("left_wrist", "mocap_31", "common_15", {"left_wrist"}),
        ("nose", "mediapipe_33", "coco_17", {"nose"}),
    ],
)
def test_joints_are_found_by_what_they_are(joint, source, target, wanted):
    assert sources_of(joint, source, target) == wanted


def test_all_missing_joints_are_named_with_a_way_out():
    with pytest.raises(UserError) as caught:
        remap_matrix(load_layout("coco_17"), load_layout("kinect_v1_20"))
    assert one_line(caught.value) == (
        "coco_17 cannot be turned into kinect_v1_20, since it lacks left_hand, right_hand, left_foot, "
        "right_foot; possible are common_15, florence_15, openni_15, openpose_18"
    )
    with pytest.raises(UserError, match=r"since it lacks .*\bneck\b"):
        remap_matrix(load_layout("common_15"), load_layout("kinect_v2_25"))


def test_a_strange_body_is_told_how_to_be_understood():
    tree = {"name": "snake", "joints": ["tail", "tip"], "bones": {"tail": "tip"}, "root": "tip"}
    snake, message = Layout.from_tree(tree, "here"), "places of its joints under 'common' in the layout snake"
    with pytest.raises(UserError, match=message):
        remap_matrix(snake, load_layout("common_15"))
    with pytest.raises(UserError, match=r"since it lacks tail, tip;"):
        remap_matrix(load_layout("kinect_v1_20"), snake)
    known = Layout.from_tree({**tree, "common": {"head": "tip", "pelvis": ["tail", "tip"]}}, "here")
    body = Layout.from_tree(
        {**tree, "joints": ["head", "pelvis"], "bones": {"pelvis": "head"}, "root": "head"}, ""
    )
    assert remap_matrix(known, body).tolist() == [[0, 1], [0.5, 0.5]]


@given(seeds, st.sampled_from(SOURCES), st.integers(1, 4), st.floats(0, 0.9))
@settings(max_examples=40, deadline=None)
def test_frames_are_those_of_a_plain_loop(seed, source, coordinates, missing):
    layout, rng = load_layout(source), np.random.default_rng(seed)
    frames_rvc = rng.normal(size=(6, len(layout.joints), coordinates)).astype(np.float32)
    frames_rvc[rng.random(frames_rvc.shape[:2]) < missing] = 0
    for target in ("common_15", source):
        matrix = remap_matrix(layout, load_layout(target))
        found = remap(frames_rvc, matrix)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, plain_remap(frames_rvc, matrix), atol=1e-6)
    assert np.array_equal(remap(frames_rvc, np.eye(len(layout.joints), dtype=np.float32)), frames_rvc)


def test_real_recordings_become_plausible_common_bodies(recordings):
    layout, common = load_layout("kinect_v1_20"), load_layout("common_15")
    paths = sorted(recordings("nw_ucla").glob("*_v01.json"))[::25]
    clips = [np.array(json.loads(path.read_text())["skeletons"], np.float32)[:1] for path in paths]
    frames_rvc = remap(np.concatenate(clips), remap_matrix(layout, common))
    at = {joint: frames_rvc[:, place] for place, joint in enumerate(common.joints)}
    for higher, lower in (
        ("head", "neck"),
        ("neck", "pelvis"),
        ("pelvis", "left_knee"),
        ("left_knee", "left_ankle"),
    ):
        assert np.mean(at[higher][:, 1] > at[lower][:, 1]) > 0.9
    for joint in ("shoulder", "elbow", "hip"):
        assert np.mean(at[f"left_{joint}"][:, 0] < at[f"right_{joint}"][:, 0]) > 0.9
    bone_rv = np.linalg.norm(frames_rvc - frames_rvc[:, list(common.parents)], axis=2)
    left, right = (
        [common.index(joint) for joint in side] for side in (common.mirror, common.mirror.values())
    )
    np.testing.assert_allclose(np.median(bone_rv[:, left], 0), np.median(bone_rv[:, right], 0), rtol=0.2)
