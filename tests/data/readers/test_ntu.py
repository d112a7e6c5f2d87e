import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from builders import damages, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from ntu_files import clip_of, person, plain_read, skeleton_text, write_clip

from ssl_skeleton.data.readers import open_reader
from ssl_skeleton.data.recording import Facts, Recording
from ssl_skeleton.errors import DamagedClip, UserError

ID = "72057594037944738"
NEIGHBOUR = "72057594037944739"  # the same number in float64
NAME = "S001C002P003R002A013"


def read(path: Path, dataset: str = "ntu60") -> Recording:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = open_reader(dataset, [path])
        (recording,) = reader.read(*reader.entries)
    return recording


def facts_of(dataset: str, path: Path) -> Facts:
    return open_reader(dataset, [path]).facts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ntu")


def read_text(folder: Path, text: str | bytes) -> Recording:
    path = folder / f"{NAME}.skeleton"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read(path)


def read_bodies(folder: Path, frames: int, **bodies) -> Recording:
    """Bodies are id=(first frame, joints)."""
    return read(write_clip(folder, clip_of(bodies, frames)))


def same(track, first_frame: int, x_tvc) -> bool:
    return track.first_frame == first_frame and np.array_equal(track.x_tvc, x_tvc)


def test_reads_what_was_written(tmp_path):
    x_tvc = person(40)
    recording = read(write_clip(tmp_path, clip_of({ID: (0, x_tvc)}, 40)))
    (track,) = recording.tracks
    assert same(track, 0, x_tvc)
    assert track.x_tvc.dtype == np.float32
    assert (recording.name, recording.frames, recording.label) == (NAME, 40, 12)
    assert (recording.setup, recording.camera, recording.subject, recording.repetition) == (1, 2, 3, 2)


def test_ids_that_are_one_float64_are_two_bodies(tmp_path):
    still, moving = person(20, 1), person(20, 2, speed=0.1)
    recording = read(write_clip(tmp_path, clip_of({ID: (0, still), NEIGHBOUR: (0, moving)}, 20)))
    assert [same(recording.tracks[0], 0, moving), same(recording.tracks[1], 0, still)] == [True, True]


def test_a_body_comes_and_goes_and_the_rest_of_the_clip_is_cut_off(tmp_path):
    x_tvc = person(30)
    frames = [*[[]] * 3, *([(ID, x_vc)] for x_vc in x_tvc), *[[]] * 4]
    frames[10] = frames[11] = []
    frames[20] = [(ID, np.zeros((25, 3)))]  # all joints at zero: not seen
    recording = read(write_clip(tmp_path, frames))
    x_tvc[[7, 8, 17]] = 0
    assert recording.frames == 30
    assert same(recording.tracks[0], 0, x_tvc)


def test_a_later_body_starts_later(tmp_path):
    recording = read_bodies(tmp_path, 60, **{"1": (5, person(40, speed=0.1)), "2": (20, person(30, 1))})
    assert recording.frames == 45
    assert [(t.first_frame, len(t.x_tvc)) for t in recording.tracks] == [(0, 40), (15, 30)]


@pytest.mark.parametrize("frames", [[], [[]], [[]] * 9, [[(ID, np.zeros((25, 3)))]] * 3])
def test_nobody_is_seen(tmp_path, frames):
    recording = read(write_clip(tmp_path, frames))
    assert (recording.frames, list(recording.tracks)) == (0, [])


def test_of_many_bodies_the_two_that_move_most_stay(tmp_path):
    bodies = {str(i): (0, person(20, i, speed=speed)) for i, speed in enumerate([0.02, 0.3, 0.0, 0.1])}
    recording = read_bodies(tmp_path, 20, **bodies)
    assert len(recording.tracks) == 2
    assert same(recording.tracks[0], 0, bodies["1"][1])
    assert same(recording.tracks[1], 0, bodies["3"][1])


def test_phantoms_are_left_out_but_never_the_last_body(tmp_path):
    body = (0, person(30))
    short, wide = (0, person(10, speed=1.0)), (0, person(30, speed=1.0, wide=True))
    for phantoms in ({"2": short}, {"2": wide}, {"2": short, "3": wide}):
        (track,) = read_bodies(tmp_path, 30, **{"1": body}, **phantoms).tracks
        assert same(track, 0, body[1])
    for alone in (short, wide):
        assert same(read_bodies(tmp_path, 30, **{"1": alone}).tracks[0], *alone)
    assert len(read_bodies(tmp_path, 30, **{"1": wide, "2": wide}).tracks) == 2
    eleven = (0, person(11, speed=1.0))
    assert len(read_bodies(tmp_path, 30, **{"1": body, "2": eleven}).tracks) == 2


@st.composite
def sightings(draw):
    """Up to ten frames of two upright bodies that come and go, written as they are."""
    bodies = {body: person(10, draw(st.integers(0, 99)), speed=0.1 * body) for body in (1, 2)}
    shown = st.lists(st.sampled_from([1, 2]), unique=True)
    return [[(str(b), bodies[b][t]) for b in draw(shown)] for t in range(draw(st.integers(0, 10)))]


@given(frames=sightings(), ending=st.sampled_from(["\n", "\r\n", " \n", "\n\n\n"]))
@settings(max_examples=60, deadline=None)
def test_agrees_with_a_plain_reader(folder, frames, ending):
    path = write_clip(folder, frames)
    plain = plain_read(path)
    text = path.read_text()
    path.write_text(text + "\n \n" if ending == "\n\n\n" else text.replace("\n", ending), newline="")
    recording = read(path)
    seen = [t for sights in plain.values() for t in sights]
    assert recording.frames == (max(seen) - min(seen) + 1 if seen else 0)
    found = sorted(
        [(track.first_frame + t, x.tobytes()) for t, x in enumerate(track.x_tvc) if x.any()]
        for track in recording.tracks
    )
    wanted = sorted([(t - min(seen), x.tobytes()) for t, x in s.items()] for s in plain.values())
    assert found == wanted


SMALL = skeleton_text(clip_of({ID: (0, person(2)), NEIGHBOUR: (1, person(1))}, 2))


def test_a_cut_file_is_damaged(folder):
    lines = SMALL.splitlines(keepends=True)
    for end in range(len(lines)):
        with pytest.raises(DamagedClip, match=f"^line {end + 1}: the file ends|^line .* ends where a joint"):
            read_text(folder, "".join(lines[:end]))
    for end in range(len(SMALL) - 2, len(SMALL) - 150, -1):
        with pytest.raises(DamagedClip, match=r"^line \d+"):
            read_text(folder, SMALL[:end])
    assert len(read_text(folder, SMALL[:-1]).tracks) == 2


def with_line(number: int, text: str) -> str:
    lines = SMALL.splitlines()
    lines[number - 1] = text
    return "\n".join(lines) + "\n"


NINE = " 1 2 3 4 5 6 7 8 2"


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "-2", "the number of frames is '-2'"),
        (1, "999999999999", "the number of frames is '9999"),
        (1, "9" * 10_000, "the number of frames is '9999"),
        (1, "2.0", "the number of frames is '2.0'"),
        (1, "1_0", "the number of frames is '1_0'"),
        (1, "", "the number of frames is ''"),
        (2, "7", "the number of bodies is '7'"),
        (3, ID, "not a body's id and 9 states"),
        (3, "7.2057594037944738e16 0 1 1 0 1 0 0.02 -0.1 2", "not a body's id"),
        (4, "20", "the number of joints is not 25"),
        (4, "26", "the number of joints is '26'"),
        (7, "1 2 3", "3 values, not 12"),
        (7, "1 2 3 4" + NINE, "13 values, not 12"),
        (7, "1 2 3" + NINE.replace(" 4", "  "), "11 values, not 12"),
        (7, "", "0 values, not 12"),
        (7, " " * 11, "0 values, not 12"),
        (7, "\t".join(" " * 12), "0 values, not 12"),
        (7, "1\t2 3 4" + NINE, "13 values, not 12"),
        (5, " " * 11, "0 values, not 12"),
        (7, "1 2 three" + NINE, "'1 2 three 1 2 3 4 5 6 7 8 2' are not 12 numbers"),
        (7, "1 2 1_0" + NINE, "are not 12 numbers"),
        (29, "1 2 0x1F" + NINE, "are not 12 numbers"),
        (7, "1 2 \0" + NINE, "are not 12 numbers"),
        (7, "1 nan 2" + NINE, "coordinate y is nan"),
        (29, "1 2 -inf" + NINE, "coordinate z is -inf"),
        (7, "1e300 2 3" + NINE, "coordinate x is inf"),
        (7, "1 2 4000" + NINE, "coordinate z is 4000"),
        (58, f"{ID} 0 1 1 0 1 0 0.02 -0.1 2", "stands twice in frame 1"),
    ],
)
def test_what_is_wrong_and_where(folder, line, text, message):
    with pytest.raises(DamagedClip, match=f"^line {line}: .*{re.escape(message)}"):
        read_text(folder, with_line(line, text))


def test_text_after_the_last_frame_and_text_that_is_no_ascii(folder):
    with pytest.raises(DamagedClip, match=r"^line 86: more text follows"):
        read_text(folder, SMALL + "\n0\n")
    with pytest.raises(DamagedClip, match=r"^line 3: byte 0xff"):
        read_text(folder, SMALL.encode().replace(ID.encode(), b"\xff", 1))
    with pytest.raises(DamagedClip, match=r"^line 1: the file ends"):
        read_text(folder, b"")


def test_values_that_move_to_another_line_are_missed(folder):
    lines = SMALL.splitlines()
    lines[6], lines[7] = "", " ".join(lines[6:8]) + " " * 10
    with pytest.raises(DamagedClip, match=r"^line 7: 0 values, not 12"):
        read_text(folder, "\n".join(lines))
    blank = [" " * 11 if line.endswith("-8e-05 2") else line for line in SMALL.splitlines()]
    with pytest.raises(DamagedClip, match=r"^line 5: 0 values, not 12"):
        read_text(folder, "\n".join(blank))


@given(data=damages(SMALL.encode()))
@settings(max_examples=examples(300), deadline=None)
def test_random_damage_is_never_a_crash(folder, data):
    try:
        recording = read_text(folder, data)
    except DamagedClip as error:
        message = str(error)
    else:
        assert all(len(t.x_tvc) + t.first_frame <= recording.frames for t in recording.tracks)
        return
    assert re.match(r"line \d+: ", message)


def test_names_and_actions(tmp_path):
    frames = clip_of({ID: (0, person(3))}, 3)
    with pytest.raises(DamagedClip, match="SsssCcccPpppRrrrAaaa"):
        read(write_clip(tmp_path, frames, "S001C001P001R001"))
    with pytest.raises(DamagedClip, match="action 0 is not one of the 60 of ntu60"):
        read(write_clip(tmp_path, frames, "S001C001P001R001A000"))
    beyond = write_clip(tmp_path, frames, "S018C001P045R001A061")
    with pytest.raises(DamagedClip, match="action 61 is not one of the 60 of ntu60; it belongs to ntu120"):
        read(beyond)
    recording = read(beyond, "ntu120")
    assert facts_of("ntu120", beyond).classes[recording.label] == "put on headphone"
    assert [len(facts_of(name, beyond).classes) for name in ("ntu60", "ntu120")] == [60, 120]


@pytest.mark.parametrize(
    ("dataset", "splits"),
    [("ntu60", ["xsub", "xview"]), ("ntu120", ["xsub", "xset"]), ("synthetic", ["xsub", "xview"])],
)
def test_what_it_says_of_the_data_set(tmp_path, dataset, splits):
    facts = facts_of(dataset, write_clip(tmp_path, clip_of({ID: (0, person(3))}, 3)))
    assert (facts.dataset, facts.layout.name, facts.fps) == (dataset, "kinect_v2_25", 30.0)
    assert list(facts.splits) == splits


def test_an_empty_folder_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="skeleton"):
        open_reader("ntu60", [tmp_path])
