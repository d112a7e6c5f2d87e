import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from nw_ucla_files import NAME, clip_bytes, person, write_clip

from ssl_skeleton.data.readers import open_reader
from ssl_skeleton.data.recording import METRES, Recording
from ssl_skeleton.errors import DamagedClip


def read(path: Path) -> Recording:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = open_reader("nw_ucla", [path])
        (recording,) = reader.read(*reader.entries)
    return recording


@pytest.mark.parametrize("frames", [1, 7])
def test_reads_what_was_written(tmp_path, frames):
    x_tvc = person(frames)
    recording = read(write_clip(tmp_path, NAME, x_tvc))
    (track,) = recording.tracks
    assert np.array_equal(track.x_tvc, np.array(x_tvc, np.float32))
    assert (track.x_tvc.dtype, track.first_frame, recording.frames) == (np.float32, 0, frames)
    assert (recording.name, recording.label, recording.subject) == (NAME, 4, 2)
    assert (recording.camera, recording.setup, recording.repetition) == (1, -1, 3)
    assert open_reader("nw_ucla", [tmp_path]).facts.classes[recording.label] == "sit down"


def test_what_it_says_of_the_data_set(tmp_path):
    facts = open_reader("nw_ucla", [write_clip(tmp_path)]).facts
    assert (facts.dataset, facts.layout.name, facts.fps) == ("nw_ucla", "kinect_v1_20", 30.0)
    assert (len(facts.classes), facts.coordinates) == (10, METRES)
    assert list(facts.splits) == ["cross_view", "cross_view_dev"]


def test_frames_that_show_nobody(tmp_path):
    x_tvc = np.array(person(7))
    x_tvc[[0, 1, 3, 6]] = 0
    recording = read(write_clip(tmp_path, NAME, x_tvc.tolist()))
    (track,) = recording.tracks
    assert (recording.frames, track.first_frame, len(track.x_tvc)) == (7, 2, 4)
    assert np.array_equal(track.x_tvc, x_tvc[2:6].astype(np.float32))


def test_labels_count_the_ten_actions(tmp_path):
    numbers = [1, 2, 3, 4, 5, 6, 8, 9, 11, 12]
    labels = [read(write_clip(tmp_path, f"a{number:02}_s01_e01_v01")).label for number in numbers]
    assert labels == list(range(10))


@pytest.mark.parametrize("skeletons", [[], np.zeros((3, 20, 3)).tolist()])
def test_nobody_is_seen(tmp_path, skeletons):
    assert list(read(write_clip(tmp_path, NAME, skeletons)).tracks) == []


def with_value(value: object) -> list:
    x_tvc = person(3)
    x_tvc[1][7][2] = value
    return x_tvc


@pytest.mark.parametrize(
    ("skeletons", "message"),
    [
        (with_value(float("nan")), "frame 1, joint 7: coordinate z is nan"),
        (with_value(float("-inf")), "frame 1, joint 7: coordinate z is -inf"),
        (with_value(1e300), "frame 1, joint 7: coordinate z is inf"),
        (with_value(None), "frames of 'skeletons' are not a list of numbers"),
        (with_value(1001), "frame 1, joint 7: coordinate z is 1001.0"),
        (with_value("three"), "frames of 'skeletons' are not a list of numbers"),
        (with_value([1]), "not a list of numbers"),
        (with_value({}), "not a list of numbers"),
        (with_value(10**400), "not a list of numbers"),
        ([person(1)[0], person(1)[0][:19]], "not a list of numbers"),
        ([person(1)[0][:19]], "coordinates have shape (1, 19, 3), not (frames, 20, 3)"),
        (person(1)[0], "coordinates have shape (20, 3)"),
        (3, "coordinates have shape ()"),
        ({"a": 1}, "not a list of numbers"),
        ("text", "not a list of numbers"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, skeletons, message):
    with pytest.raises(DamagedClip, match=re.escape(message)):
        read(write_clip(tmp_path, NAME, skeletons))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not valid JSON"),
        (clip_bytes(person())[:-1], "not valid JSON"),
        (b"\xff\xfe\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "has no 'skeletons'"),
        (b"null", "has no 'skeletons'"),
        (b'{"skeleton": []}', "has no 'skeletons'"),
    ],
)
def test_what_is_no_clip(tmp_path, data, message):
    path = tmp_path / f"{NAME}.json"
    path.write_bytes(data)
    with pytest.raises(DamagedClip, match=message):
        read(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a07_s01_e01_v01", "action 7 is not one of 1, 2, 3, 4, 5, 6, 8, 9, 11, 12"),
        ("a1_s01_e01_v01", "does not read aXX_sXX_eXX_vXX"),
        ("a01_s01_e01_v01_copy", "does not read aXX_sXX_eXX_vXX"),
    ],
)
def test_names_tell_what_a_clip_is(tmp_path, name, message):
    with pytest.raises(DamagedClip, match=message):
        read(write_clip(tmp_path, name))


def test_the_recordings_as_published(recordings):
    reader = open_reader("nw_ucla", [recordings("nw_ucla")])
    clips = [clip for entry in reader.entries for clip in reader.read(entry)]
    lengths = [clip.frames for clip in clips]
    assert (len(clips), sum(lengths), min(lengths), max(lengths)) == (1484, 58534, 1, 201)
    assert len({clip.name for clip in clips}) == 1484
    assert {clip.label for clip in clips} == set(range(10))
    assert {clip.camera for clip in clips} == {1, 2, 3}
    assert {clip.subject for clip in clips} == set(range(1, 11))
    assert {clip.tracks[0].x_tvc.shape[1:] for clip in clips} == {(20, 3)}
    layout = reader.facts.layout
    assert all(clip.tracks[0].x_tvc.any(axis=(1, 2)).all() for clip in clips)
    first_nvc = np.stack([clip.tracks[0].x_tvc[0] for clip in clips])
    head, left, right = (
        first_nvc[:, layout.index(joint), 1] for joint in ("head", "left_foot", "right_foot")
    )
    assert np.mean(head > np.maximum(left, right) + 0.5) > 0.99
