import re
import zipfile

import numpy as np
import pytest
from plain_text import clips, opened, outcomes, plain_numbers
from sbu_files import pair, write_clip

from ssl_skeleton.errors import DamagedClip

LIMBS = ("left_shoulder", "left_elbow", "left_hand", "right_shoulder", "right_elbow", "right_hand")
LEGS = ("left_hip", "left_knee", "left_foot", "right_hip", "right_knee", "right_foot")
ORDER = ("head", "neck", "torso", *LIMBS, *LEGS)


def test_the_formulas_joint_by_joint(tmp_path):
    path = write_clip(tmp_path, "s03s04/02/001", pair(6))
    reader = opened("sbu", tmp_path)
    (clip,) = clips(reader)
    assert reader.facts.layout.joints == ORDER
    for t, line in enumerate(path.read_text().split("\n")[:6]):
        values = [float(value) for value in line.split(",")]
        for body in range(2):
            for joint in range(15):
                x, y, z = values[1 + 45 * body + 3 * joint :][:3]
                wanted = [1280 - 2560 * x, 960 - 1920 * y, z * 10000 / 7.8125]  # as published, 1 for 1 mm
                found = clip.tracks[body].x_tvc[t, joint]
                assert np.allclose(1000 * found, wanted, rtol=1e-5, atol=1e-3)


def test_what_a_path_tells(tmp_path):
    write_clip(tmp_path, "s03s04/02/001")
    reader = opened("sbu", tmp_path)
    (clip,) = clips(reader)
    assert (clip.name, clip.frames, clip.label) == ("s03s04_02_001", 4, 1)
    assert (clip.subject, clip.setup, clip.repetition, clip.camera) == (3, 304, 1, -1)
    assert reader.facts.classes[clip.label] == "departing"


@pytest.mark.parametrize("inside", ["", "s03s04/"])
def test_the_archive_of_one_pair(tmp_path, inside):
    path = write_clip(tmp_path / "clips", "s03s04/02/001")
    with zipfile.ZipFile(tmp_path / "s03s04.zip", "w") as archive:
        archive.write(path, f"{inside}02/001/skeleton_pos.txt")
    for root in (tmp_path / "s03s04.zip", tmp_path / "clips" / "s03s04"):
        (clip,) = clips(opened("sbu", root))
        assert clip.name == "s03s04_02_001"


def test_a_body_and_a_joint_that_are_not_seen(tmp_path):
    x_tmvc = pair(5)
    x_tmvc[0, 0] = x_tmvc[3, 1] = x_tmvc[2, 1, 7] = 0
    write_clip(tmp_path, x_tmvc=x_tmvc)
    (clip,) = clips(opened("sbu", tmp_path))
    first, second = clip.tracks
    assert (clip.frames, first.first_frame, len(first.x_tvc)) == (5, 1, 4)
    assert (second.first_frame, len(second.x_tvc)) == (0, 5)
    assert np.argwhere(~second.x_tvc.any(axis=2)).tolist() == [[2, 7], *([3, joint] for joint in range(15))]


def test_frames_by_their_numbers(tmp_path):
    path = write_clip(tmp_path)
    (clip,) = clips(opened("sbu", tmp_path))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[2], lines[0], lines[1], lines[3], lines[2]]))
    (again,) = clips(opened("sbu", tmp_path))
    assert plain_numbers(path).shape == (5, 91)
    assert again.frames == 4
    assert np.array_equal(again.tracks[0].x_tvc, clip.tracks[0].x_tvc)


def test_each_pair_tests_in_one_fold(tmp_path):
    write_clip(tmp_path)
    folds = list(opened("sbu", tmp_path).facts.splits.values())
    pairs = sorted(folds[0].train + folds[0].test)
    assert (len(folds), len(pairs)) == (5, 21)
    assert sorted(pair for fold in folds for pair in fold.test) == pairs
    assert all(sorted(fold.train + fold.test) == pairs for fold in folds)
    numbers = [[1 + pairs.index(pair) for pair in fold.test] for fold in folds]
    # As usually written: the pairs are numbered in the order of their names.
    assert numbers == [[1, 9, 15, 19], [5, 7, 10, 16], [2, 3, 20, 21], [4, 6, 8, 11], [12, 13, 14, 17, 18]]
    assert all(pair // 100 in range(1, 8) and pair % 100 in range(1, 8) for pair in pairs)


@pytest.mark.parametrize(
    ("place", "text", "message"),
    [
        ("s03s04/09/001", None, "class 9 is not one of 1 to 8"),
        ("s03/02/001", None, "the path does not read sXXsYY/CC/NNN/skeleton_pos.txt"),
        ("s03s04/02/001", "1,2,3", "line 1: 3 values, not 91"),
        ("s03s04/02/001", "1.5" + ",0" * 90, "row 1: 1.5 is no frame number"),
        ("s03s04/02/001", "1" + ",0" * 89 + ",800", "body 2: frame 0, joint 14: coordinate z is 1024.0"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, place, text, message):
    path = write_clip(tmp_path, place)
    if text:
        path.write_text(text)
    with pytest.raises(DamagedClip, match=re.escape(message)):
        outcomes(opened("sbu", tmp_path))
