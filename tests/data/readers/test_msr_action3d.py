import re

import numpy as np
import pytest
from msr_action3d_files import clip_text, person, write_clip
from plain_text import clips, opened, outcomes, plain_numbers

from ssl_skeleton.errors import DamagedClip, UserError

# As the data set numbers its joints, 1 to 20.
JOINTS = (
    *("left_shoulder", "right_shoulder", "shoulder_center", "spine", "left_hip", "right_hip", "hip_center"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle", "left_foot", "right_foot", "head"),
)


def test_every_joint_is_found_by_its_number(tmp_path):
    path = write_clip(tmp_path, "a05_s02_e03", person(7))
    reader = opened("msr_action3d", tmp_path)
    (clip,) = clips(reader)
    (track,) = clip.tracks
    lines = plain_numbers(path)
    for joint, name in enumerate(reader.facts.layout.joints):
        for t in range(7):
            assert np.array_equal(track.x_tvc[t, joint], lines[20 * t + JOINTS.index(name), :3])
    assert (clip.name, clip.frames, clip.label) == ("a05_s02_e03", 7, 4)
    assert (clip.subject, clip.repetition, clip.camera, clip.setup) == (2, 3, -1, -1)
    assert reader.facts.classes[clip.label] == "forward punch"


def test_frames_of_zeros_are_not_seen(tmp_path):
    x_tvc = person(8)
    x_tvc[[0, 1, 4, 7]] = 0
    write_clip(tmp_path, "a01_s01_e01", x_tvc)
    write_clip(tmp_path, "a01_s01_e02", 0 * x_tvc)
    first, second = clips(opened("msr_action3d", tmp_path))
    assert (first.frames, first.tracks[0].first_frame, len(first.tracks[0].x_tvc)) == (8, 2, 5)
    assert np.flatnonzero(~first.tracks[0].x_tvc.any(axis=(1, 2))).tolist() == [2]
    assert (second.frames, list(second.tracks)) == (8, [])


def test_the_three_action_sets(tmp_path):
    for action in range(1, 21):
        write_clip(tmp_path, f"a{action:02}_s01_e01")
    every = clips(opened("msr_action3d", tmp_path))
    names = opened("msr_action3d", tmp_path).facts.classes
    assert [clip.label for clip in every] == list(range(20))
    sets = []
    for number in (1, 2, 3):
        reader = opened(f"msr_action3d_as{number}", tmp_path)
        found = clips(reader)
        assert [clip.label for clip in found] == list(range(8))
        for clip in found:
            assert reader.facts.classes[clip.label] == names[int(clip.name[1:3]) - 1]
        sets.append({int(clip.name[1:3]) for clip in found})
    assert set.union(*sets) == set(range(1, 21))
    assert [
        sorted(one & two) for one, two in ((sets[0], sets[1]), (sets[0], sets[2]), (sets[1], sets[2]))
    ] == [
        [],
        [6, 18, 20],
        [14],
    ]


def test_a_set_without_clips(tmp_path):
    write_clip(tmp_path, "a01_s01_e01")
    with pytest.raises(UserError, match="holds no clip of the actions 2, 3, 5"):
        opened("msr_action3d_as1", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (clip_text(person(2))[:-9], "line 40: 3 values, not 4"),
        ("0 0 0 1\n" * 19, "19 lines are no whole number of frames of 20 joints"),
        ("0 0 0 1\n" * 19 + "0 0 1001 1\n", "body 1: frame 0, joint 3: coordinate z is 1001.0"),
        ("0 0 0 1\n" * 19 + "0 0 nan 1\n", "line 20: 'nan' is no number"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, text, message):
    write_clip(tmp_path).write_text(text)
    with pytest.raises(DamagedClip, match=re.escape(message)):
        outcomes(opened("msr_action3d", tmp_path))


@pytest.mark.parametrize("name", ["a21_s01_e01", "a00_s01_e01", "a1_s01_e01", "b"])
def test_names_tell_what_a_clip_is(tmp_path, name):
    write_clip(tmp_path, name)
    with pytest.raises(DamagedClip, match=r"does not read aXX_sXX_eXX|is not one of 1 to 20"):
        outcomes(opened("msr_action3d", tmp_path))


def test_odd_subjects_train(tmp_path):
    write_clip(tmp_path)
    splits = opened("msr_action3d", tmp_path).facts.splits
    assert splits["cross_subject"].train == (1, 3, 5, 7, 9)
    assert splits["cross_subject"].test == (2, 4, 6, 8, 10)
    dev = splits["cross_subject_dev"]
    assert sorted([*dev.train, *dev.test]) == [1, 3, 5, 7, 9]
