import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mediapipe_files import as_dicts, image_landmarks, world_landmarks, write_example, write_landmarks_table
from own_files import about, write_table

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.mediapipe import MediaPipe
from ssl_skeleton.data.recording import IMAGE, METRES, Recording
from ssl_skeleton.data.source import Source
from ssl_skeleton.errors import DamagedClip
from ssl_skeleton.skeleton.layout import load_layout

X_TVC, WORLD_TVC = image_landmarks(), world_landmarks()
STORED = (X_TVC[..., [0, 1, 3]] * [1, -1, 1]).astype(np.float32)


def outcomes(folder: Path, tree: Any = None, **keys) -> list[Any]:
    (folder / "data").mkdir(exist_ok=True)
    if tree is not None:
        (folder / "data" / "clip.json").write_text(tree if isinstance(tree, str) else json.dumps(tree))
    reader = MediaPipe(Source(folder / "data"), about(folder, layout=None, **keys))
    assert reader.facts.coordinates == (METRES if keys.get("coordinates") == "world" else IMAGE)
    return [clip for entry in reader.entries for clip in reader.read(entry)]


def read(folder: Path, tree: Any = None, **keys) -> Recording:
    (clip,) = outcomes(folder, tree, **keys)
    if isinstance(clip, DamagedClip):
        raise clip
    return clip


@pytest.mark.parametrize(
    "tree",
    [
        as_dicts(X_TVC),
        X_TVC.tolist(),
        {"fps": 30, "frames": X_TVC.tolist()},
        [{"frame": 7 + frame, "landmarks": pose} for frame, pose in enumerate(as_dicts(X_TVC))],
        [{"pose_landmarks": pose, "pose_world_landmarks": []} for pose in X_TVC.tolist()],
        [[pose] for pose in X_TVC.tolist()],
        {"frames": [{"pose_landmarks": [pose]} for pose in as_dicts(X_TVC)]},
        [[[*mark, 0.99] for mark in pose] for pose in X_TVC.tolist()],
        [{"landmark": pose} for pose in as_dicts(X_TVC)],
        [{"pose_landmarks": {"landmark": pose}} for pose in as_dicts(X_TVC)],
        [{"poseLandmarks": pose, "poseWorldLandmarks": []} for pose in as_dicts(X_TVC)],
        [{"landmarks": [pose], "worldLandmarks": []} for pose in as_dicts(X_TVC)],
    ],
)
def test_all_forms_say_the_same(tmp_path, tree):
    clip = read(tmp_path, tree)
    assert (clip.name, clip.frames, len(clip.tracks)) == ("clip", 5, 1)
    assert np.array_equal(clip.tracks[0].x_tvc, STORED)


def test_tables_by_number_and_by_either_name(tmp_path):
    (tmp_path / "data").mkdir()
    path = write_landmarks_table(tmp_path / "data" / "clip.csv", X_TVC)
    assert np.array_equal(read(tmp_path).tracks[0].x_tvc, STORED)
    joints = [joint.upper() for joint in load_layout("mediapipe_33").joints]
    joints[9:11] = "MOUTH_LEFT", "MOUTH_RIGHT"  # as MediaPipe calls them
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    write_table(
        path, [[f, joints[int(mark)], *rest] for f, mark, *rest in lines], "frame,joint,x,y,z,visibility"
    )
    assert np.array_equal(read(tmp_path).tracks[0].x_tvc, STORED)


@pytest.mark.parametrize("key", ["pose_world_landmarks", "poseWorldLandmarks", "worldLandmarks", "landmarks"])
def test_the_world(tmp_path, key):
    clip = read(
        tmp_path, [{"landmarks": None, key: pose} for pose in as_dicts(WORLD_TVC)], coordinates="world"
    )
    x_tvc = clip.tracks[0].x_tvc
    assert np.allclose(x_tvc, WORLD_TVC[..., :3] * [-1, -1, 1], atol=1e-6)


def test_the_world_in_a_table_and_other_axes(tmp_path):
    (tmp_path / "data").mkdir()
    write_landmarks_table(tmp_path / "data" / "clip.csv", WORLD_TVC)
    clip = read(tmp_path, coordinates="world", axes=["x", "y", "z"], unit=1.0)
    assert np.allclose(clip.tracks[0].x_tvc, WORLD_TVC[..., :3], atol=1e-6)


def test_one_kind_cannot_pass_for_the_other(tmp_path):
    with pytest.raises(DamagedClip, match=r"these are world landmarks.* write 'coordinates: world'"):
        read(tmp_path, as_dicts(WORLD_TVC))
    with pytest.raises(DamagedClip, match=r"these are image landmarks.* write 'coordinates: image'"):
        read(tmp_path, as_dicts(X_TVC), coordinates="world")


@pytest.mark.parametrize("nobody", [None, [], [[]], {"landmarks": None}])
def test_frames_that_show_nobody(tmp_path, nobody):
    frames = X_TVC.tolist()
    nobody = [] if nobody == [[]] else nobody
    clip = read(tmp_path, [nobody, frames[0], nobody, frames[1], nobody])
    assert (clip.frames, clip.tracks[0].first_frame, len(clip.tracks[0].x_tvc)) == (5, 1, 3)
    assert not clip.tracks[0].x_tvc[1].any()
    assert list(read(tmp_path, [nobody]).tracks) == []


def test_the_example(tmp_path):
    path = write_example(tmp_path / "data")
    reader = MediaPipe(Source(tmp_path / "data"), About.read(path))
    clips = [clip for entry in reader.entries for clip in reader.read(entry)]
    assert [(clip.name, clip.frames, clip.label, clip.subject) for clip in clips] == [
        ("sit_s3", 2, 0, 3),
        ("walk_s2", 5, 1, 2),
        ("wave_s1", 3, 2, 1),
    ]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("", "not valid JSON"),
        ("3", "is neither a list of frames nor"),
        ({"a": 1}, "is neither a list of frames nor"),
        ([3], "frame 0 is no list of landmarks"),
        ([{"a": 1}], "frame 0 has no 'pose_landmarks'"),
        ([X_TVC[0].tolist()[:-1]], "frame 0: 32 landmarks, not 33"),
        ([[X_TVC[0].tolist()] * 2], "frame 0 shows 2 people; write a file for each"),
        ([[3] * 33], "a landmark is neither"),
        ([[[1]] * 33], "a landmark is neither"),
        ([[{"x": "1", "y": 1}] * 33], "frame 0: landmarks are not a list of numbers"),
        ([[{"x": 1}] * 33], "frame 0: landmarks are not a list of numbers"),
        ([[[1, 1, 1, [1]]] * 33], "frame 0: landmarks are not a list of numbers"),
        ([[[1e30, 1, 1, 1]] * 33], "frame 0, joint 0: coordinate x is"),
        ([{"frame": "a", "landmarks": []}], "a frame has no number"),
        ([{"frame": 3, "landmarks": []}] * 2, "frame 3 is given twice"),
        ([{"pose_landmarks": {"a": 1}}], "frame 0 is no list of landmarks"),
        (
            [{"pose_landmarks": {}, "frame": 9}, {"landmarks": X_TVC[0].tolist(), "frame": 10**6}],
            "only 2 frames from number 9 to",
        ),
        ([X_TVC[0].tolist(), *[None] * 40_000, X_TVC[1].tolist()], "mostly gaps, in which nobody is seen"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, tree, message):
    with pytest.raises(DamagedClip, match=re.escape(message)):
        read(tmp_path, tree)


def test_the_world_in_millimetres_needs_a_unit(tmp_path):
    x_tvc = WORLD_TVC[..., :3] * 50
    with pytest.raises(DamagedClip, match="the body would take"):
        read(tmp_path, x_tvc.tolist(), coordinates="world")
    clip = read(tmp_path, x_tvc.tolist(), coordinates="world", unit=0.02)
    assert np.allclose(clip.tracks[0].x_tvc, WORLD_TVC[..., :3] * [-1, -1, 1], atol=1e-5)
