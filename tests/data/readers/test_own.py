import csv
import io
import re
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from builders import seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from own_files import LAYOUT, about, table_lines, walker, write_example, write_table

from ssl_skeleton.data.parsing.arrays import read_npy
from ssl_skeleton.data.parsing.table import joint_places, read_table
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Outcome
from ssl_skeleton.data.readers.own import Own
from ssl_skeleton.data.recording import IMAGE, METRES, Recording
from ssl_skeleton.data.source import Source
from ssl_skeleton.errors import DamagedClip, UserError


def read(folder: Path, **keys) -> dict[str, Recording | DamagedClip]:
    """All clips below folder/data by name; a damaged one by its message."""
    reader = Own(Source(folder / "data"), about(folder, **keys))
    outcomes: Sequence[Outcome] = [clip for entry in reader.entries for clip in reader.read(entry)]
    return {str(clip) if isinstance(clip, DamagedClip) else clip.name: clip for clip in outcomes}


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_every_kind_of_file(tmp_path):
    path = write_example(tmp_path / "data")
    reader = Own(Source(tmp_path / "data"), About.read(path))
    clips = {clip.name: clip for entry in reader.entries for clip in reader.read(entry)}
    wanted = {
        "walk/01": [walker(6, 1)],
        "pair": [walker(5, 2), walker(5, 3)],
        "one": [walker(4, 4)],
        "sit": [walker(3, 5)],
        "stand": [walker(4, 6)],
        "jump": [walker(3, 7), walker(3, 8)],
        "fall": [walker(2, 9)],
    }
    assert set(clips) == set(wanted)
    for subject, (name, bodies) in enumerate(wanted.items(), 1):
        clip = clips[name]
        assert (clip.frames, clip.subject, clip.camera) == (len(bodies[0]), subject, -1)
        assert reader.facts.classes[clip.label] == name.partition("/")[0]
        for track, x_tvc in zip(clip.tracks, bodies, strict=True):
            assert track.x_tvc.dtype == np.float32
            assert np.array_equal(track.x_tvc, x_tvc)
    assert (reader.facts.dataset, reader.facts.fps, reader.facts.coordinates) == ("mine", 30.0, METRES)
    assert reader.facts.splits["xsub"].train == (1, 2, 3, 4)


@pytest.mark.parametrize("kind", ["<f2", ">f4", "<f8", ">f8", "<i2", ">i8", "|u1"])
@pytest.mark.parametrize("fortran", [False, True])
def test_numbers_of_any_kind(data, kind, fortran):
    x_tvc = (10 * walker(4)).astype(kind)
    np.save(data / "clip.npy", np.asfortranarray(x_tvc) if fortran else x_tvc)
    (track,) = read(data.parent, unit=1)["clip"].tracks
    assert np.array_equal(track.x_tvc, x_tvc.astype(np.float32))


def test_what_is_not_seen_is_zero(data):
    x_mtvc = np.stack([walker(6, 1), walker(6, 2), walker(6, 3)])
    x_mtvc[0, 2, 5, 1] = np.nan
    x_mtvc[1, [0, 3, 5]] = np.nan
    x_mtvc[2] = 0
    np.save(data / "clip.npy", x_mtvc)
    clip = read(data.parent)["clip"]
    assert (clip.frames, [(t.first_frame, len(t.x_tvc)) for t in clip.tracks]) == (6, [(0, 6), (1, 4)])
    assert not clip.tracks[0].x_tvc[2, 5].any()
    assert np.array_equal(clip.tracks[0].x_tvc[2, 6:], x_mtvc[0, 2, 6:])
    assert clip.tracks[1].x_tvc.any(axis=(1, 2)).tolist() == [True, True, False, True]


def test_millimetres_and_other_axes(data):
    x_tvc = walker(3)
    x_tvc[1, 4] = 0
    np.save(data / "clip.npy", x_tvc)
    (track,) = read(data.parent, unit=0.001, axes=["-x", "z", "y"])["clip"].tracks
    wanted = np.stack([-x_tvc[..., 0], x_tvc[..., 2], x_tvc[..., 1]], axis=-1) / 1000
    assert np.allclose(track.x_tvc, wanted, rtol=1e-6)
    assert not np.signbit(track.x_tvc[1, 4]).any()


@pytest.mark.parametrize("coordinates", [2, 3])
def test_an_image(data, coordinates):
    x_tvc = walker(3, coordinates=coordinates) * 100
    if coordinates == 3:
        x_tvc[..., 2] = 0.5
        x_tvc[0, 0, 2], x_tvc[0, 1, 2] = 0, 2
    x_tvc[1, 2, :2] = 0
    np.save(data / "clip.npy", x_tvc)
    reader = Own(Source(data), about(data.parent, coordinates="image"))
    assert reader.facts.coordinates == IMAGE
    assert "y up" in reader.facts.note
    (clip,) = reader.read(reader.entries[0])
    stored = clip.tracks[0].x_tvc
    assert not stored[1, 2].any()
    assert np.array_equal(stored[2, :, 0], x_tvc[2, :, 0])
    assert np.array_equal(stored[2, :, 1], -x_tvc[2, :, 1])
    assert (stored[2, :, 2] == (0.5 if coordinates == 3 else 1)).all()
    if coordinates == 3:
        assert not stored[0, 0].any()
        assert stored[0, 1, 2] == 1


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            walker(3)[:, :19],
            "(3, 19, 3) is not (frames, joints, coordinates), here (frames, 20, 3); the layout",
        ),
        (walker(3)[..., :2], "write 'coordinates: image' in the about file"),
        (walker(3).reshape(3, 60), "shape (3, 60) is neither (frames, joints, coordinates) nor"),
        (np.array(1.0), "shape () is neither"),
        (np.full((1, 20, 3), np.inf), "frame 0, joint 0: coordinate x is inf"),
        (np.full((1, 20, 3), 1e300), "frame 0, joint 0: coordinate x is inf"),
        (np.full((1, 20, 3), 1234.0), "frame 0, joint 0: coordinate x is 1234.0"),
        (np.zeros((1, 20, 3), complex), "holds complex128, not numbers"),
        (np.zeros((1, 20, 3), bool), "holds bool, not numbers"),
        (np.array(["text"]), "holds <U4, not numbers"),
        (np.zeros(2, [("x", "f4")]), "not numbers"),
    ],
)
def test_what_is_no_clip(data, array, message):
    np.save(data / "clip.npy", array)
    with pytest.raises(DamagedClip, match=re.escape(message)):
        read(data.parent)


def test_no_pickle_is_opened(data):
    np.save(data / "clip.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DamagedClip, match="holds object, not numbers"):
        read(data.parent)


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("given_bytes", "message"),
    [
        (b"", "not a .npy file"),
        (b"\x93NUMPY\x09\x00", "not a .npy file"),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,20,3)}\n"),
            r"shape \(99999999999999999999, 20, 3\) is not possible",
        ),
        (
            header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,-20,3)}\n") + bytes(240),
            "is not possible",
        ),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,20,3)}\n") + bytes(236), "236 bytes"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1,20,3)}\n") + bytes(244), "244 bytes"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000), "not a .npy file"),
        (header("{'descr': '<f4', 'fortran_order': 1is 2, 'shape': (1,)}\n"), "not a .npy file"),
    ],
)
def test_headers_are_not_trusted(given_bytes, message):
    with pytest.raises(DamagedClip, match=message):
        read_npy(given_bytes)


@pytest.mark.parametrize("most", [10**18, 2**63, 10**30, 10**4000])
def test_axes_of_nothing_are_not_trusted(most):
    for shape in (f"(0, {most}, 3)", f"({most}, {most}, 0)", f"(0, {2**39}, {2**39})"):
        text = header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n")
        with pytest.raises(DamagedClip, match="is not possible") as caught:
            read_npy(text)
        assert len(str(caught.value)) < 200


def test_an_array_of_endless_axes_is_refused():
    with pytest.raises(DamagedClip, match="is not possible"):
        read_npy(header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9, ' * 2000})}}\n"))


@pytest.mark.parametrize("shape", [(200, 50, 20, 3), (11, 1, 20, 3)])
def test_frames_or_clips_are_not_taken_for_bodies(data, shape):
    np.save(data / "clip.npy", np.ones(shape, np.float32))
    with pytest.raises(DamagedClip, match=re.escape(f"shape {shape} has {shape[0]} bodies; a clip is")):
        read(data.parent)
    (data / "clip.npy").unlink()
    np.savez(data / "all.npz", data=np.ones(shape, np.float32), labels=np.zeros(shape[0], int))
    assert f"clip 'data': shape {shape} has {shape[0]} bodies" in next(iter(read(data.parent)))


def test_a_great_many_bodies_of_no_frames():
    text = header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**12 - 1}, 0, 20, 3)}}\n")
    assert read_npy(text).shape[0] == 10**12 - 1


def test_a_body_of_a_hundred_metres_has_another_unit(data):
    x_tvc = walker(3) * 100
    np.save(data / "clip.npy", x_tvc)
    with pytest.raises(DamagedClip, match=r"the body would take 93.7 m; say in an about file .* 0\.001 for"):
        read(data.parent)
    for unit in (1, 0.01):
        (track,) = read(data.parent, unit=unit)["clip"].tracks
        assert np.allclose(track.x_tvc, x_tvc * unit, rtol=1e-5)


def test_a_body_far_away_with_missing_joints_is_no_large_body(data):
    x_tvc = walker(4) + np.array([0, 0, 8])
    x_tvc[1, :5], x_tvc[2, :15] = 0, np.nan
    x_tvc[3, 2] = 90  # one wrong joint in one frame of many
    np.save(data / "clip.npy", x_tvc)
    assert read(data.parent)["clip"].frames == 4


def test_z_is_no_confidence(data):
    np.save(data / "clip.npy", walker(3) + np.array([0, 0, 2]))
    with pytest.raises(DamagedClip, match=r"is no confidence; for x, y, z say coordinates: world"):
        read(data.parent, coordinates="image")
    x_tvc = walker(3)
    x_tvc[..., 2] = np.linspace(-0.2, 2.2, 20)
    x_tvc[0, 0, 2] = np.nan
    np.save(data / "clip.npy", x_tvc)
    assert read(data.parent, coordinates="image")["clip"].frames == 3


def test_one_bad_array_of_many(data):
    np.savez(data / "many.npz", good=walker(2), bad=walker(2)[:, :5])
    clips = read(data.parent)
    assert clips.pop("good").frames == 2
    assert "clip 'bad': shape (2, 5, 3)" in next(iter(clips))


def test_the_key_x_is_the_clip(data):
    np.savez(data / "clip.npz", x=walker(2), label=np.array(3))
    assert set(read(data.parent)) == {"clip"}


@pytest.mark.parametrize("lie", [False, True])
def test_a_zip_bomb(data, lie):
    with zipfile.ZipFile(data / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(1 << 25))
    if lie:  # the directory promises a small array
        bad = (data / "bomb.npz").read_bytes().replace(struct.pack("<I", 1 << 25), struct.pack("<I", 368))
        (data / "bomb.npz").write_bytes(bad)
    clips = {}
    try:
        clips = read(data.parent)
    except DamagedClip as error:
        clips = {str(error): None}
    (message,) = clips
    assert ("cannot be unpacked" if lie else "would unpack to 33554432 bytes") in message


def as_plain(path: Path) -> dict[tuple[str, str], dict[tuple[int, str], list[float]]]:
    """A plain reading of a table: by clip and body, by frame and joint."""
    found: dict = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            key = (int(line["frame"]), line["joint"])
            found.setdefault((line["clip"], line["body"]), {})[key] = [float(line[c]) for c in "xyz"]
    return found


@given(st.data(), seeds)
@settings(max_examples=40, deadline=None)
def test_tables_against_a_plain_reading(tmp_path_factory, draws, seed):
    data = tmp_path_factory.mktemp("own") / "data"
    data.mkdir()
    rng = np.random.default_rng(seed)
    lines = table_lines("one", [walker(4, seed), walker(3, seed + 1)], -5) + table_lines(
        "two", [walker(2)], 7
    )
    kept = [line for line in lines if rng.random() < 0.7] or lines
    rng.shuffle(kept)
    path = write_table(data / "long.csv", kept)
    found = read(data.parent)
    plain = as_plain(path)
    for name, clip in found.items():
        bodies = list(dict.fromkeys(body for clip_name, body in plain if clip_name == name))
        first = min(frame for body in bodies for frame, _ in plain[name, body])
        last = max(frame for body in bodies for frame, _ in plain[name, body])
        assert clip.frames == last - first + 1
        in_order = sorted(bodies, key=bodies.index)
        every = {body: np.zeros((clip.frames, 20, 3), np.float32) for body in in_order}
        for body in in_order:
            for (frame, joint), values in plain[name, body].items():
                every[body][frame - first, LAYOUT.joints.index(joint)] = values
        whole = [np.zeros_like(every[body]) for body in in_order]
        for x_tvc, track in zip(whole, clip.tracks, strict=True):
            x_tvc[track.first_frame : track.first_frame + len(track.x_tvc)] = track.x_tvc
        assert {x.tobytes() for x in whole} == {x.tobytes() for x in every.values()}
    assert {name for name, _ in plain} == set(found)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_tables_from_anywhere(data, mark, delimiter, ending):
    lines = [
        "Frame,Joint,X,Y,Z,Time",
        "3.0,0, 1,2,3.5e-1,x",
        "",
        "4, HEAD ,,nan,NaN,x",
        '5,"19",1,.5,-2,x',
        "",
    ]
    text = ending.join(lines).replace(",", delimiter)
    (data / "long.csv").write_bytes(mark + text.encode())
    clip = read(data.parent)["long"]
    assert clip.frames == 3
    (track,) = clip.tracks
    wanted = np.zeros((3, 20, 3), np.float32)
    wanted[0, 0], wanted[2, 19] = (1, 2, 0.35), (1, 0.5, -2)
    assert np.array_equal(track.x_tvc, wanted)


@pytest.mark.parametrize(
    "header_line", ["frame,joint,x,y", "frame,joint,x,y,confidence", "y,x,joint,frame,visibility"]
)
def test_tables_of_an_image(data, header_line):
    cells = {"frame": "0", "joint": "head", "x": "5", "y": "6", "confidence": "0.5", "visibility": "0.5"}
    write_table(data / "long.csv", [[cells[name] for name in header_line.split(",")]], header_line)
    (track,) = read(data.parent, coordinates="image")["long"].tracks
    confidence = 1 if header_line.endswith(",y") else 0.5
    assert track.x_tvc[0, LAYOUT.index("head")].tolist() == [5, -6, confidence]


HEADER = "clip,frame,body,joint,x,y,z\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("a,b\n", "line 1: has no column 'frame'"),
        (
            "frame,head_x,head_y,head_z\n",
            "has no column 'joint'; write a line for each joint, frame,joint,x,y,z",
        ),
        (
            HEADER + "a,0,0,head,1,5,2,5,3,5\n",
            "line 2 has 10 cells, the first line has 7; decimals need a point",
        ),
        (HEADER.replace(",", ";") + "a;0;0;head;1,5;2;3\n", "line 2: x '1,5' is no number; write a point"),
        (HEADER, "holds no line but the first"),
        ("clip,frame,joint,x,y\na,0,head,1,2\n", "write 'coordinates: image' in the about file"),
        ("clip,frame,joint,x,y,z,x\n", "line 1: column 'x' stands twice"),
        ("clip,frame,boddy,joint,x,y,z\n", "line 1: unknown column 'boddy'; did you mean 'body'?"),
        (HEADER + "a,0,0,head,1,2,3\na,1,0,head,1,2\n", "line 3 has 6 cells, the first line has 7"),
        (
            HEADER + "a,0,0,head,1,2,3\n\na,1,0,haed,1,2,3\n",
            "line 4: joint 'haed' is not possible; did you mean 'head'",
        ),
        (HEADER + "a,0,0,20,1,2,3\n", "line 2: joint '20' is not possible; their numbers are 0 to 19"),
        (HEADER + "a,0.5,0,head,1,2,3\n", "line 2: frame '0.5' is not possible; it should be a whole number"),
        (HEADER + "a,1_0,0,head,1,2,3\n", "line 2: frame '1_0'"),
        (HEADER + "a,0,0,head,1,1_0,3\n", "line 2: y '1_0' is no number"),
        (HEADER + "a,0,0,head,1,0x1,3\n", "line 2: y '0x1' is no number"),
        (HEADER + "a,0,0,head,1,2,inf\n", "line 2: z 'inf' is no number"),
        (HEADER + "a,0,0,head,1,2,1e-\n", "line 2: z '1e-' is no number"),
        (HEADER + 'a,0,0,"head,1,2,3\n', "not valid CSV"),
    ],
)
def test_what_is_wrong_in_a_table_and_where(data, text, message):
    (data / "long.csv").write_text(text)
    with pytest.raises(DamagedClip, match=re.escape(message)):
        read(data.parent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,0,0,head,1,2,3\na,0,0,3,1,2,3\n", "clip 'a': line 3: joint 'head' stands twice in frame 0"),
        (
            "a,0,0,head,1,2,3\na,999999999,0,head,1,2,3\n",
            "clip 'a': only 2 frames from number 0 to 999999999",
        ),
        ("a,0,0,head,1,2,1e39\n", "clip 'a': frame 0, joint 3: coordinate z is inf"),
    ],
)
def test_one_bad_clip_of_a_table(data, text, message):
    (data / "long.csv").write_text(HEADER + text + "b,0,0,head,1,2,3\n")
    clips = read(data.parent)
    assert clips.pop("b").frames == 1
    assert message in next(iter(clips))


def test_lines_of_foreign_bytes(data):
    (data / "long.csv").write_bytes(HEADER.encode() + b"a,0,0,head,1,2,3\na\xff,0,0,head,1,2,3\n")
    with pytest.raises(DamagedClip, match="line 3: byte 0xff is no UTF-8 text"):
        read(data.parent)


def test_a_large_table_in_bounded_time():
    joints = "\n".join(f"c{{0}},{{1}},{joint},1.25,-0.5,3" for joint in LAYOUT.joints)
    text = "clip,frame,joint,x,y,z\n" + "\n".join(joints.format(n // 100, n % 100) for n in range(5000))
    start = time.process_time()
    table = read_table(text.encode(), joint_places(LAYOUT.joints), image=False)
    assert len(table.clips) == 50
    assert table.x_rc.shape == (100_000, 3)
    assert time.process_time() - start < 3  # about 0.2 on one core


def test_labels_that_name_no_clip(data, tmp_path):
    np.save(data / "walk_01.npy", walker())
    write_table(tmp_path / "labels.csv", [["walk_01.npy", "walk"]], "clip,label")
    with pytest.raises(
        UserError, match=r"names no clip that is there; its first is 'walk_01.npy', did you mean 'walk_01'"
    ):
        read(tmp_path, labels="labels.csv")


def test_folders_can_tell_the_label(data):
    for place in ("walk/s01", "sit/s02"):
        (data / place).parent.mkdir()
        np.save(data / f"{place}.npy", walker())
    clips = read(data.parent, names="{label}/s{subject}")
    assert {(clip.name, clip.label, clip.subject) for clip in clips.values()} == {
        ("walk/s01", 1, 1),
        ("sit/s02", 0, 2),
    }


def test_no_files_and_no_about_file(data):
    with pytest.raises(UserError, match=r"holds no \*\.npy, \*\.npz, \*\.csv; --source names"):
        read(data.parent)
    with pytest.raises(UserError, match="own: needs --about FILE"):
        Own(Source(data), None)


def test_nobody_is_seen(data):
    np.save(data / "zeros.npy", np.zeros((4, 20, 3)))
    np.save(data / "empty.npy", np.zeros((0, 20, 3)))
    clips = read(data.parent)
    assert {name: (clip.frames, list(clip.tracks)) for name, clip in clips.items()} == {
        "zeros": (4, []),
        "empty": (0, []),
    }


def test_a_table_of_gaps_stays_small(data):
    lines = [[f"c{n}", frame, "0", "head", "1", "2", "3"] for n in range(300) for frame in ("0", "3000")]
    write_table(data / "long.csv", lines)
    clips = read(data.parent)
    assert "the file is read no further" in list(clips)[-1]
    assert sum(clip.frames for clip in list(clips.values())[:-1]) < 54_000


def test_gaps_cost_nothing_before_they_are_refused(data):
    lines = [
        [f"c{n}", str(frame), str(body), "head", "1", "2", "3"]
        for n in range(40)
        for body in range(20)
        for frame in (0, 3000)
    ]
    write_table(data / "long.csv", lines)
    tracemalloc.start()
    try:
        clips = read(data.parent)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert next(iter(clips)).startswith("clip 'c0': its frames are mostly gaps")
    assert peak < 1 << 25


def test_a_table_of_too_many_bodies(data):
    write_table(data / "long.csv", [["a", "0", str(body), "head", "1", "2", "3"] for body in range(101)])
    assert list(read(data.parent)) == ["clip 'a': 101 bodies are more than the 100 that a clip may have"]


def test_a_recording_may_be_called_as_the_labels_file(data, tmp_path):
    (data / "walk").mkdir()
    write_table(data / "walk" / "labels.csv", table_lines("", [walker(2)]))
    labels = write_table(tmp_path / "labels.csv", [["walk/labels", "walk"]], "clip,label")
    assert list(read(tmp_path, labels="labels.csv")) == ["walk/labels"]
    (data / "labels.csv").write_bytes(labels.read_bytes())
    assert list(read(tmp_path, labels="data/labels.csv")) == ["walk/labels"]


def test_a_name_without_an_end(data):
    np.savez(data / "many.npz", **{"a" * 301: walker(2), "b": walker(2)})
    for keys in ({}, {"names": "{label}"}):
        names = list(read(data.parent, **keys))
        assert names[1] == "b"
        assert "a name of 301 letters is longer than 300" in names[0]
        assert len(names[0]) < 300
