import re

import numpy as np
import pytest
from florence_files import clips_text, person, write_clips, write_example
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_text import clips, opened, outcomes, plain_numbers

from ssl_skeleton.errors import DamagedClip

ARMS = ("left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist")
LEGS = ("left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle")


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 9), st.integers(1, 5)), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_agrees_with_a_plain_reader(tmp_path, made):
    path = write_clips(tmp_path, [(v, a, c, person(t, v)) for v, (a, c, t) in enumerate(made, 1)])
    reader = opened("florence3d", tmp_path)
    assert reader.facts.layout.joints == ("head", "neck", "spine", *ARMS, *LEGS)
    lines = plain_numbers(path)
    found = clips(reader)
    assert len(found) == len(made)
    for video, (clip, (actor, category, frames)) in enumerate(zip(found, made, strict=True), 1):
        assert clip.name == f"v{video:03}_s{actor:02}_a{category:02}"
        assert (clip.label, clip.subject, clip.frames) == (category - 1, actor, frames)
        wanted = lines[lines[:, 0] == video, 3:].reshape(-1, 15, 3) / 1000
        assert np.allclose(clip.tracks[0].x_tvc, wanted, rtol=1e-6)


def test_metres_stay_metres(tmp_path):
    write_clips(tmp_path, [(1, 1, 1, person(3))])
    (millimetres,) = clips(opened("florence3d", tmp_path))
    write_clips(tmp_path, [(1, 1, 1, person(3) / 1000)])
    (metres,) = clips(opened("florence3d", tmp_path))
    assert np.allclose(metres.tracks[0].x_tvc, millimetres.tracks[0].x_tvc, atol=1e-3)


def test_a_damaged_clip_leaves_the_others(tmp_path):
    path = write_clips(tmp_path, [(v, 1, 2, person(3, v)) for v in (1, 2, 3)])
    lines = path.read_text().splitlines()
    lines[4] = lines[4].rsplit(" ", 1)[0] + " nan"
    path.write_text("\n".join([*lines[:3], "", *lines[3:]]))
    one, two, three = outcomes(opened("florence3d", tmp_path))
    assert (one.name, three.name) == ("v001_s01_a02", "v003_s01_a02")
    assert str(two).startswith("video 2, lines 5 to 7: line 6: 'nan' is no number")


def test_a_video_stands_in_one_place(tmp_path):
    write_clips(tmp_path, [(1, 1, 1, person(3)), (2, 1, 1, person(3)), (1, 1, 1, person(2))])
    first, second, third = outcomes(opened("florence3d", tmp_path))
    assert second.name == "v002_s01_a01"
    assert str(first) == "video 1, lines 1 to 3: its frames do not stand together, or are of two clips"
    assert isinstance(third, DamagedClip)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1 1 1 ", "1 1 ", "line 1: does not begin with the numbers of a video, an actor, a category"),
        ("1 1 1 ", "1_0 1 1 ", "line 1: does not begin with the numbers"),
        ("1 1 1 ", "-1 1 1 ", "line 1: does not begin with the numbers"),
        ("1 1 1 ", "1 1 123456 ", "line 1: does not begin with the numbers"),
    ],
)
def test_a_line_of_no_clip_damages_the_file(tmp_path, old, new, message):
    text = clips_text([(1, 1, 1, np.full((1, 15, 3), 7.0))])
    assert text.startswith(old)
    write_clips(tmp_path, []).write_text(new + ("x " if new == "1 1 " else "") + text[len(old) :])
    with pytest.raises(DamagedClip, match=re.escape(message)):
        outcomes(opened("florence3d", tmp_path))


@pytest.mark.parametrize("category", [0, 10])
def test_an_unknown_category(tmp_path, category):
    write_clips(tmp_path, [(1, 1, category, person(2))])
    (clip,) = outcomes(opened("florence3d", tmp_path))
    assert str(clip) == f"video 1, lines 1 to 2: category {category} is not one of 1 to 9"


def test_each_actor_is_left_out_once(tmp_path):
    write_example(tmp_path)
    splits = opened("florence3d", tmp_path).facts.splits
    left_out = [splits[f"leave_out_{actor}"] for actor in range(1, 11)]
    assert [split.test for split in left_out] == [(actor,) for actor in range(1, 11)]
    for split in (*left_out, splits["cross_subject"]):
        assert sorted(split.train + split.test) == list(range(1, 11))
    dev = splits["cross_subject_dev"]
    assert sorted(dev.train + dev.test) == list(splits["cross_subject"].train)
