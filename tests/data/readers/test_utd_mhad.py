import io
import re
import resource
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from builders import damages, one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat
from utd_mhad_files import NAME, clip_bytes, person, write_clip, write_example

from ssl_skeleton.data.parsing.matlab import read_matrix
from ssl_skeleton.data.readers.utd_mhad import UtdMhad
from ssl_skeleton.data.recording import Recording, check_recording
from ssl_skeleton.data.source import Source
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import load_layout

# The order of the joints in a file, written out.
JOINTS = """
    head shoulder_center spine hip_center left_shoulder left_elbow left_wrist left_hand right_shoulder
    right_elbow right_wrist right_hand left_hip left_knee left_ankle left_foot right_hip right_knee
    right_ankle right_foot
""".split()  # noqa: SIM905
LAYOUT = load_layout("kinect_v1_20")
HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def read(path: Path) -> Recording:
    reader = UtdMhad(Source(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (recording,) = reader.read(reader.entries[0])
    check_recording(recording, reader.facts)
    return recording


def read_bytes(folder: Path, data: bytes) -> Recording:
    path = folder / f"{NAME}.mat"
    path.write_bytes(data)
    return read(path)


@pytest.mark.parametrize("frames", [1, 6])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("compress", [True, False])
def test_every_joint_comes_to_its_place(tmp_path, frames, dtype, compress):
    x_vct = person(frames).astype(dtype)
    recording = read_bytes(tmp_path, clip_bytes(x_vct, compress=compress))
    (track,) = recording.tracks
    assert (recording.frames, track.first_frame, track.x_tvc.shape) == (frames, 0, (frames, 20, 3))
    assert track.x_tvc.dtype == np.float32
    for place, joint in enumerate(JOINTS):
        there = track.x_tvc[:, LAYOUT.index(joint)]
        assert np.array_equal(there, x_vct[place].T.astype(np.float32))


def test_names_tell_what_a_clip_is(tmp_path):
    clip = read(write_clip(tmp_path))
    assert (clip.name, clip.label, clip.subject, clip.repetition) == ("a7_s3_t2", 6, 3, 2)
    assert (clip.camera, clip.setup) == (-1, -1)


def test_whole_numbers_are_stored_as_such_by_matlab_and_read_all_the_same(tmp_path):
    x_vct = np.arange(120.0).reshape(20, 3, 2)
    data = clip_bytes(x_vct, compress=False)
    small = x_vct.astype(np.uint8).tobytes(order="F")
    whole = data[: data.index(struct.pack("<II", 9, 960))] + struct.pack("<II", 2, 120) + small
    whole = whole[:132] + struct.pack("<I", len(whole) - 136) + whole[136:]
    (track,) = read_bytes(tmp_path, whole).tracks
    assert np.array_equal(track.x_tvc[1, LAYOUT.index("head")], x_vct[0, :, 1])


def test_frames_in_which_nobody_is_seen(tmp_path):
    x_vct = person(6)
    x_vct[..., [0, 3, 5]] = 0
    clip = read(write_clip(tmp_path, x_vct=x_vct))
    (track,) = clip.tracks
    assert (clip.frames, track.first_frame, len(track.x_tvc)) == (6, 1, 4)
    assert track.x_tvc.any((1, 2)).tolist() == [True, True, False, True]
    assert read(write_clip(tmp_path, x_vct=np.zeros((20, 3, 5)))).tracks == []


def with_value(value: float) -> np.ndarray:
    x_vct = person(3)
    x_vct[JOINTS.index("left_knee"), 2, 1] = value
    return x_vct


@pytest.mark.parametrize(
    ("x_vct", "message"),
    [
        (with_value(np.nan), "frame 1, joint 13: coordinate z is nan"),
        (with_value(1e300), "frame 1, joint 13: coordinate z is inf"),
        (person()[:19], "'d_skel' has shape (19, 3, 4), not (20, 3, frames)"),
        (person()[:, :2], "'d_skel' has shape (20, 2, 4)"),
        (person()[..., None], "'d_skel' has shape (20, 3, 4, 1)"),
        (1.0, "'d_skel' has shape (1, 1)"),
        (person() * 1j, "'d_skel' is not an array of real numbers"),
        (person() > 0, "'d_skel' is not an array of real numbers"),
        (person().astype(np.int16), "'d_skel' is not an array of real"),
        (person(0), "'d_skel' has shape (20, 3, 0)"),
        ("a text", "'d_skel' is not an array of real"),
        ({"a": 1}, "'d_skel' is not an array of real"),
        (person().astype(object), "'d_skel' is not an array of real"),
    ],
)
def test_what_is_wrong(tmp_path, x_vct, message):
    with pytest.raises(DamagedClip, match=re.escape(message)):
        read(write_clip(tmp_path, x_vct=x_vct))


GOOD = clip_bytes(person())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a MATLAB 5.0 file"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF", "MATLAB 7.3 file .* '-v7'"),
        (b"\x89HDF\r\n\x1a\n", "MATLAB 7.3 file"),
        (HEADER, "'d_skel' stands 0 times"),
        (HEADER[:50], "not a MATLAB 5.0 file"),
        (clip_bytes(person(), "d_depth"), "'d_skel' stands 0 times"),
        (GOOD + GOOD[128:], "'d_skel' stands 2 times"),
        (GOOD[:-1], "byte 128: the file or a variable of it is cut"),
        (GOOD + b"\0", "the file or a variable of it is cut"),
        (HEADER + struct.pack("<II", 15, 4) + b"none", "cannot be unpacked"),
        (HEADER + struct.pack("<II", 9, 8) + bytes(8), "byte 128: an element of kind 9 is no variable"),
    ],
)
def test_what_is_no_clip(tmp_path, data, message):
    with pytest.raises(DamagedClip, match=message):
        read_bytes(tmp_path, data)


@pytest.mark.parametrize(
    "name", ["a07_s3_t2", "a0_s1_t1_skeleton", "a28_s1_t1_skeleton", "a1_s٣_t1_skeleton"]
)
def test_other_names(tmp_path, name):
    with pytest.raises((DamagedClip, UserError)):
        read(write_clip(tmp_path, name))


def packed(data: bytes) -> bytes:
    data = zlib.compress(data, 9)
    return struct.pack("<II", 15, len(data)) + data


def declared(size: int) -> bytes:
    """A variable (20, 3, huge) that says it has `size` bytes of numbers, and has none."""
    good = clip_bytes(person(), compress=False)[128:]
    numbers = good.index(struct.pack("<II", 9, 1920))
    body = good[8:numbers].replace(struct.pack("<3i", 20, 3, 4), struct.pack("<3i", 20, 3, size // 480))
    body += struct.pack("<II", 9, size)
    return struct.pack("<II", 14, len(body)) + body


def bomb(zeros: int) -> bytes:
    """A packed variable of so many zeros."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(struct.pack("<II", 14, zeros))]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(zeros >> 20)]
    data = b"".join(parts) + packer.flush()
    return struct.pack("<II", 15, len(data)) + data


BOMB = bomb(1000 << 20)


@pytest.mark.parametrize(
    "data",
    [BOMB, packed(BOMB), packed(declared(4_000_000_080)), declared(4_000_000_080), packed(bytes(5)) * 1000],
    ids=["bomb", "bomb in a packing", "huge count, packed", "huge count", "many"],
)
def test_small_files_take_little_memory(tmp_path, data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedClip):
        read_bytes(tmp_path, HEADER + data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # in kB


def test_cells_within_cells_do_not_exhaust_the_stack(tmp_path):
    def cell(inside: bytes) -> bytes:
        body = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 1)
        body += struct.pack("<II8s", 1, 6, b"d_skel") + inside
        return struct.pack("<II", 14, len(body)) + body

    data = b""
    for _ in range(3000):
        data = cell(data)
    with pytest.raises(DamagedClip, match="'d_skel' is not an array of real numbers"):
        read_bytes(tmp_path, HEADER + data)


@given(st.data())
def test_numbers_against_scipy(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    dtype = data.draw(st.sampled_from(["<f8", "<f4", ">f8"]))
    values = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=shape).astype(dtype)
    file = clip_bytes(values, compress=data.draw(st.booleans()))
    assert np.array_equal(read_matrix(file, "d_skel", 1 << 16), loadmat(io.BytesIO(file))["d_skel"])


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_damage_is_read_or_refused(tmp_path_factory, data):
    good = data.draw(st.sampled_from([GOOD, clip_bytes(person(), compress=False)]))
    try:
        read_bytes(tmp_path_factory.mktemp("hurt"), data.draw(damages(good)))
    except DamagedClip as error:
        one_line(error)


def test_the_example_is_read(tmp_path):
    write_example(tmp_path / "data")
    reader = UtdMhad(Source(tmp_path / "data"))
    assert [reader.read(entry)[0].name for entry in reader.entries] == ["a1_s2_t4", "a27_s8_t1", "a7_s3_t2"]


# The recordings as published


@pytest.fixture(scope="module")
def reader(recordings) -> UtdMhad:
    return UtdMhad(Source(recordings("utd_mhad")))


@pytest.fixture(scope="module")
def clips(reader) -> list[Recording]:
    return [reader.read(entry)[0] for entry in reader.entries]


def test_counts_as_published(reader, clips):
    lengths = [clip.frames for clip in clips]
    assert (len(clips), sum(lengths), min(lengths), max(lengths)) == (861, 58299, 41, 125)
    assert len({clip.name for clip in clips}) == 861
    per_class = np.bincount([clip.label for clip in clips])
    assert per_class.tolist() == [31 if action in (8, 23, 27) else 32 for action in range(1, 28)]
    assert len(set(reader.facts.classes)) == 27
    subjects = {"subject": np.array([clip.subject for clip in clips])}
    parts = {name: rule.divide(subjects) for name, rule in reader.facts.splits.items()}
    counts = {
        name: tuple(len(part[key]) for key in ("train", "validation", "test")) for name, part in parts.items()
    }
    assert counts == {
        "cross_subject": (431, 0, 430),
        "cross_subject_val": (323, 108, 430),
        "cross_subject_dev": (323, 0, 108),
    }


def test_joints_against_a_plain_reading(reader, clips):
    for entry, clip in list(zip(reader.entries, clips, strict=True))[::97]:
        raw_vct = loadmat(reader.source.roots[0] / entry.path)["d_skel"]
        for place, joint in enumerate(JOINTS):
            assert np.array_equal(
                clip.tracks[0].x_tvc[:, LAYOUT.index(joint)], raw_vct[place].T.astype(np.float32)
            )


def mean_places(clip: Recording) -> dict[str, np.ndarray]:
    return dict(zip(LAYOUT.joints, clip.tracks[0].x_tvc.mean(0), strict=True))


def test_axes_of_all_clips(clips):
    """y is up, the left at the smaller x, and toes point to the camera, at the smaller z."""
    for clip in clips:
        at = mean_places(clip)
        assert at["head"][1] > at["hip_center"][1] + 0.3
        for side in ("left", "right"):
            assert at[f"{side}_foot"][1] < at["hip_center"][1] - 0.3
        assert at["left_foot"][2] + at["right_foot"][2] < at["left_ankle"][2] + at["right_ankle"][2]
        assert at["left_hip"][0] < at["right_hip"][0]
        assert at["left_shoulder"][0] < at["right_shoulder"][0]


def path_length(clip: Recording, joint: str) -> float:
    x_tvc = clip.tracks[0].x_tvc
    x_tc = x_tvc[:, LAYOUT.index(joint)] - x_tvc[:, LAYOUT.index("shoulder_center")]
    return float(np.linalg.norm(np.diff(x_tc, axis=0), axis=1).sum())


def test_the_right_arm_is_the_one_that_moves(reader, clips):
    right = [
        clip for clip in clips if "right" in (name := reader.facts.classes[clip.label]) and "from" not in name
    ]
    moved = sum(path_length(clip, "right_wrist") > path_length(clip, "left_wrist") for clip in right)
    assert len(right) == 383
    assert moved >= 382


def test_circles_turn_as_their_names_say(clips):
    """The performer, who looks along -z, sees x grow to the right: a mirror image would turn them around."""
    turns = {8: 0, 9: 0}
    for clip in clips:
        if clip.label in turns:
            x, y, _ = clip.tracks[0].x_tvc[:, LAYOUT.index("right_wrist")].T.astype(np.float64)
            area = np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) + x[-1] * y[0] - x[0] * y[-1]
            turns[clip.label] += int(area < 0)
    assert (turns[8], turns[9]) == (32, 0)
