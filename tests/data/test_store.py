import csv
import json
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import (
    CLASSES,
    FACTS,
    LAYOUT,
    SPLITS,
    damages,
    examples,
    one_line,
    recordings,
    stored,
    write_store,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import IMAGE, Facts, Recording, Track
from ssl_skeleton.data.store import COLUMNS, open_store
from ssl_skeleton.data.writing import StoreWriter, Written, frames_fit, new_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout, load_layout

FILES = ("meta.json", "clips.csv", "frames.npy", "tracks.npy")


def clip(name: str, frames: int, **facts: int) -> Recording:
    x_tvc = np.random.default_rng(frames).normal(size=(frames, len(LAYOUT.joints), 3)).astype(np.float32)
    return Recording(name, frames, [Track(0, x_tvc), Track(1, x_tvc[1:])], **facts)


@given(recordings(), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_back(clips, bodies):
    with stored(clips, bodies) as store:
        assert store.names == tuple(clip.name for clip in clips)
        for column in COLUMNS[1:-1]:
            assert store.columns[column].tolist() == [getattr(clip, column) for clip in clips]
        kept = [(number, track) for number, clip in enumerate(clips) for track in clip.tracks[:bodies]]
        assert store.columns["bodies"].tolist() == [len(clip.tracks[:bodies]) for clip in clips]
        assert len(store.tracks) == len(kept)
        for (number, track), (owner, row, first, frames) in zip(kept, store.tracks, strict=True):
            assert (owner, first, frames) == (number, track.first_frame, len(track.x_tvc))
            assert np.array_equal(store.frames_rvc[row : row + frames], track.x_tvc)
        assert sum(len(track.x_tvc) for _, track in kept) == len(store.frames_rvc) == store.meta.rows
        assert (len(store), store.meta.clips, store.meta.classes) == (len(clips), len(clips), CLASSES)
        assert store.meta.bodies == max(store.columns["bodies"])
        assert store.layout == LAYOUT
        assert (store.meta.splits, store.meta.coordinates) == (SPLITS, FACTS.coordinates)


@given(recordings(channels=len(IMAGE)))
@settings(max_examples=10, deadline=None)
def test_image_coordinates_are_read_back(clips):
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "store", clips, facts=replace(FACTS, coordinates=IMAGE, note="pixels"))
        store = open_store(Path(folder) / "store")
        assert (store.meta.coordinates, store.meta.note) == (("x", "y", "confidence"), "pixels")
        assert store.frames_rvc.tobytes() == b"".join(t.x_tvc.tobytes() for c in clips for t in c.tracks)


def test_a_layout_of_ones_own_lies_in_the_store(tmp_path):
    tree = {
        "name": "mine",
        "joints": ["a", "b", 'ü, "c"'],
        "bones": {"b": "a", 'ü, "c"': "b"},
        "mirror": {"a": "b"},
        "root": "a",
        "center": ["a", 'ü, "c"'],
    }
    own = Layout.from_tree(tree, "own")
    x_tvc = np.ones((2, 3, 3), np.float32)
    facts = Facts("mine", own, 25.0, splits=SPLITS)
    write_store(tmp_path / "store", [Recording("x", 2, [Track(0, x_tvc)])], facts=facts)
    store = open_store(tmp_path / "store")
    assert store.layout == own
    assert store.layout.order_from(own.joints) == (0, 1, 2)
    assert (store.meta.classes, store.meta.fps, store.meta.dataset) == ((), 25.0, "mine")


@pytest.mark.parametrize(
    "name", ['a,"b"', "é\u20ac", "\u2028", "\x85", "'", "# x", " x ", "1,2", "", '"', "\n"]
)
@pytest.mark.parametrize("beside", ["plain", 'quo"te'])
def test_any_name_is_read_back(tmp_path, name, beside):
    write_store(tmp_path / "store", [clip(name, 3, subject=7), clip(beside, 4, camera=2)])
    store = open_store(tmp_path / "store")
    assert store.names == (name, beside)
    assert store.columns["subject"].tolist() == [7, -1]
    assert store.lengths.tolist() == [3, 4]


def test_the_split_of_all_clips_trains_on_all(tmp_path):
    write_store(tmp_path / "store", [clip("a", 3), clip("b", 3, camera=3, label=1)])
    split = open_store(tmp_path / "store").split("all")
    assert (split.name, split.train.tolist(), split.test.tolist()) == ("all", [0, 1], [])
    assert split.validation.tolist() == []
    assert {part.dtype.str for part in (split.train, split.test, split.validation)} == {"<i8"}
    assert open_store(tmp_path / "store").split_names == ("cross_view", "held_out", "all")


@given(recordings(), st.integers(0, 4), st.binary(max_size=3000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_writer_goes_on_where_another_one_stopped(clips, first, more, is_longer):
    with tempfile.TemporaryDirectory() as house:
        folder = Path(house) / "half"
        folder.mkdir()
        writer = StoreWriter(folder, FACTS, bodies=3)
        for clip in clips[:first]:
            writer.add(clip)
        written = Written(list(writer.written.lines), list(writer.written.tracks), writer.written.rows)
        for clip in clips[first:] if is_longer else ():  # written, but not told of
            writer.add(clip)
        writer.close()
        with (folder / "frames.npy").open("ab") as file:
            file.write(more)
        assert frames_fit(folder, FACTS, written.rows)
        writer = StoreWriter(folder, FACTS, bodies=3, done=written)
        for clip in clips[first:]:
            writer.add(clip)
        writer.finish("nowhere")
        write_store(Path(house) / "whole", clips)
        for path in (Path(house) / "whole").iterdir():
            assert (folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_frames_that_are_too_few_do_not_fit(tmp_path):
    write_store(tmp_path / "store", [clip("a", 3)])
    rows = open_store(tmp_path / "store").meta.rows
    assert frames_fit(tmp_path / "store", FACTS, rows)
    assert not frames_fit(tmp_path / "store", FACTS, rows + 1)
    assert frames_fit(tmp_path, FACTS, 0)
    assert not frames_fit(tmp_path, FACTS, 1)


def test_the_files_are_what_any_language_reads(tmp_path):
    clips = [clip('a,"b"', 3, label=1, subject=4, camera=2, setup=7, repetition=5), clip("c", 4)]
    write_store(tmp_path / "store", clips)
    lines = (tmp_path / "store" / "clips.csv").read_text().splitlines()
    assert lines == [",".join(COLUMNS), '"a,""b""",1,4,2,7,5,3,2', "c,-1,-1,-1,-1,-1,4,2"]
    frames_rvc = np.load(tmp_path / "store" / "frames.npy")
    assert (frames_rvc.shape, frames_rvc.dtype.str) == ((3 + 2 + 4 + 3, 20, 3), "<f4")
    tracks = np.load(tmp_path / "store" / "tracks.npy")
    assert tracks.tolist() == [[0, 0, 0, 3], [0, 3, 1, 2], [1, 5, 0, 4], [1, 9, 1, 3]]
    meta = json.loads((tmp_path / "store" / "meta.json").read_text())
    assert (meta["format"], meta["fps"], meta["rows"]) == (2, 30.0, 12)
    assert (meta["layout"]["name"], meta["layout"]["joints"]) == ("kinect_v1_20", list(LAYOUT.joints))
    assert meta["splits"]["cross_view"] == {
        "column": "camera",
        "train": [1, 2],
        "test": [3],
        "validation": [],
    }
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == sorted([*FILES, "skipped.csv"])
    assert (tmp_path / "store" / "skipped.csv").read_text() == "why,what\n"


def test_what_was_skipped_is_written_down(tmp_path):
    with new_store(tmp_path / "store", FACTS) as writer:
        writer.add(clip("a", 3))
        skipped = {"damaged": ['b.json: a "quote", a comma', "c\n.json"], "without a body": [], "lost": ["d"]}
        writer.finish("nowhere", skipped)
    with (tmp_path / "store" / "skipped.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [
        ["why", "what"],
        ["damaged", 'b.json: a "quote", a comma'],
        ["damaged", "c\n.json"],
        ["lost", "d"],
    ]


@pytest.mark.parametrize("extra", [None, "notes.txt", "clip.json"])
def test_only_a_store_is_overwritten(tmp_path, extra):
    out = tmp_path / "store"
    write_store(out, [clip("old", 3)])
    if extra is None:
        write_store(out, [clip("new", 3)], overwrite=True)
        assert open_store(out).names == ("new",)
        return
    (out / extra).write_text("mine")
    with pytest.raises(UserError, match="holds other things"):
        write_store(out, [clip("new", 3)], overwrite=True)
    assert open_store(out).names == ("old",)
    assert (out / extra).read_text() == "mine"


@pytest.mark.parametrize("name", ["clips.csv", "meta.jsn"])
def test_a_folder_without_meta_data_is_no_store_to_overwrite(tmp_path, name):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / name).write_text("mine")
    with pytest.raises(UserError, match="holds other things"):
        write_store(tmp_path / "store", [clip("new", 3)], overwrite=True)
    assert (tmp_path / "store" / name).read_text() == "mine"


def fail_to_write(out: Path, reason: type[BaseException], *, overwrite: bool = False) -> None:
    with new_store(out, FACTS, overwrite=overwrite) as writer:
        writer.add(clip("new", 3))
        raise reason


@pytest.mark.parametrize("reason", [ArithmeticError, KeyboardInterrupt])
def test_nothing_half_written_is_left_behind(tmp_path, reason):
    with pytest.raises(reason):
        fail_to_write(tmp_path / "store", reason)
    assert not list(tmp_path.iterdir())


def test_a_failed_writer_leaves_the_older_store(tmp_path):
    write_store(tmp_path / "store", [clip("old", 3)])
    with pytest.raises(ArithmeticError):
        fail_to_write(tmp_path / "store", ArithmeticError, overwrite=True)
    assert open_store(tmp_path / "store").names == ("old",)
    write_store(tmp_path / "store", [clip("new", 3)], overwrite=True)
    assert open_store(tmp_path / "store").names == ("new",)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a good store of two clips with two tracks each, 8 rows in all."""
    out = tmp_path_factory.mktemp("good") / "store"
    write_store(out, [clip("a", 2, label=0, camera=1), clip("b", 3, label=2)])
    return {name: (out / name).read_bytes() for name in FILES}


@pytest.fixture
def broken(good: dict[str, bytes], tmp_path: Path):
    """Gives the error that opening the store raises with one file changed, None: removed."""

    def refusal(name: str, data: bytes | None) -> str:
        write_files(tmp_path, good, **{name: data})
        with pytest.raises(UserError) as caught:
            open_store(tmp_path)
        message = one_line(caught.value)
        assert message.startswith(str(tmp_path))
        return message

    return refusal


def write_files(folder: Path, good: dict[str, bytes], **changed: bytes | None) -> None:
    for name, data in {**good, **changed}.items():
        if data is None:
            (folder / name).unlink(missing_ok=True)
        else:
            (folder / name).write_bytes(data)


def test_a_good_store_opens(good, tmp_path):
    write_files(tmp_path, good)
    assert len(open_store(tmp_path)) == 2


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(broken, name):
    message = broken(name, None)
    assert ("not a prepared store" if name == "meta.json" else name) in message


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file(broken, good, name):
    size = len(good[name])
    for end in {*range(0, size - 2, max(1, size // 40)), size - 3}:
        assert name in broken(name, good[name][:end])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "format 1 is not 2; prepare the store again"),
        ({"format": 3}, "format 3 is not 2"),
        ({"format": "2"}, "format: "),
        ({"clips": 3}, "clips.csv: holds 2, not 3"),
        ({"tracks": 5}, "tracks.npy: holds"),
        ({"rows": 9}, "frames.npy: holds"),
        ({"rows": 2**70}, "frames.npy: holds"),
        ({"rows": 0}, "rows: input should be greater than or equal to 1, not 0"),
        ({"bodies": 1}, "tracks.npy: a track does not fit"),
        ({"classes": ["wave"]}, "clips.csv: a label is not below 1"),
        ({"layout": load_layout("kinect_v2_25").to_tree()}, "frames.npy: holds"),
        ({"layout": "kinect_v1_20"}, "layout: "),
        ({"layout": {**LAYOUT.to_tree(), "root": "tail"}}, "'tail' is not among the joints"),
        ({"coordinates": ["x", "y"]}, "frames.npy: holds"),
        ({"splits": {"a": {"column": "camera", "train": [1], "test": [1]}}}, "a camera stands twice"),
        ({"splits": {"a": {"column": "kamera", "train": [1], "test": [2]}}}, "splits.a.column: "),
        ({"fps": 0}, "fps: "),
        ({"fps": float("inf")}, "fps: "),
        ({"fps": float("nan")}, "fps: "),
        ({"fps": "thirty"}, "fps: "),
        ({"framse": 1}, "unknown key 'framse'"),
        ({"source": None}, "source: "),
    ],
)
def test_facts_that_do_not_fit(broken, good, change, message):
    meta = {**json.loads(good["meta.json"]), **change}
    assert message in broken("meta.json", json.dumps(meta).encode())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name,label", "nome,label"),
        ("a,0,", "a,-2,"),
        ("a,0,", "a,3,"),
        ("a,0,", "a,x,"),
        ("a,0,", "a,,"),
        ("a,0,", "a,0,0,"),
        ("a,0,", "a,1e0,"),
        ("a,0,", "a,99999999999999999999,"),
        (",2,2\n", ",1,2\n"),  # fewer frames than its tracks
        (",2,2\n", ",0,2\n"),
        (",2,2\n", ",-9223372036854775808,2\n"),
        (",2,2\n", ",2,1\n"),  # fewer bodies than tracks
        (",2,2\n", ",2,3\n"),
        ("a,", '"a,'),
        ("b,", "\n"),
        ("b,", "b\rb,"),
        ("b,", "b\0\xff,"),
        (",2,2\nb,", ",2,2,9\nb,"),  # 17 cells
        (",2,2\nb,", ",2\nb,1,"),  # 16 cells, but not in 2 lines of 8
        (",2,2\nb,", ",2,2,9\n"),
        (",2,2\nb,2", ",2,2,b,2"),
        ("a,0,", '"a",0,7,'),
        (",2,2\n", ',2,2\n"x",1\n'),
    ],
)
def test_a_damaged_table(broken, good, old, new):
    text = good["clips.csv"].decode()
    assert old in text
    assert "prepare" in broken("clips.csv", text.replace(old, new, 1).encode("latin-1"))


LARGEST = np.iinfo(np.int64).max


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *[((1, column), -1) for column in range(4)],
        *[((1, column), LARGEST) for column in range(4)],
        ((3, 0), 2),  # no such clip
        ((1, 0), 1),  # the body of another clip
        ((0, 0), 1),  # clips out of order
        ((3, 1), 9),  # beyond the frames
        ((1, 2), 2),  # beyond its clip
        ((1, 3), 0),
        ((1, 3), 2),
        ((3, 3), 3),
    ],
)
def test_a_track_out_of_range(broken, good, tmp_path, place, value):
    write_files(tmp_path, good)
    tracks = np.load(tmp_path / "tracks.npy")
    tracks[place] = value
    np.save(tmp_path / "tracks.npy", tracks)
    assert "a track does not fit" in broken("tracks.npy", (tmp_path / "tracks.npy").read_bytes())


@pytest.mark.parametrize("name", ["frames.npy", "tracks.npy"])
def test_arrays_of_another_kind(broken, tmp_path, name):
    shape = (8, 20, 3) if name == "frames.npy" else (4, 4)
    for wrong in (
        np.zeros(shape, "<f8"),
        np.zeros(shape, ">f4"),
        np.zeros((*shape, 1), "<f4"),
        np.zeros((), "<i8"),
        np.zeros(shape, object),
    ):
        np.save(tmp_path / name, wrong)
        assert name in broken(name, (tmp_path / name).read_bytes())
    np.savez(tmp_path / "other.npz", np.zeros(shape))
    assert name in broken(name, (tmp_path / "other.npz").read_bytes())


@given(st.data())
@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_damage_is_refused_or_does_no_harm(good, tmp_path, data):
    name = data.draw(st.sampled_from(FILES))
    write_files(tmp_path, good, **{name: data.draw(damages(good[name]))})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # numpy's, of an odd header that it can mend
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            store = open_store(tmp_path)
            packed = PackedClips(store, bodies=2)
        except UserError as error:
            one_line(error)
            return
    clips = packed.gather(torch.arange(len(store)), frames=4)
    assert clips.x.shape == (2, 3, 4, 20, 2)
    assert clips.x.isfinite().all()


@given(st.integers(0, 127), st.integers(1, 255))
@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_flipped_header_never_crashes(good, tmp_path, place, flip):
    data = bytearray(good["frames.npy"])
    data[place] ^= flip
    write_files(tmp_path, good, **{"frames.npy": bytes(data)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            store = open_store(tmp_path)
        except UserError as error:
            one_line(error)
            return
    assert store.frames_rvc.shape == (8, 20, 3)


@pytest.mark.parametrize("kind", ["nothing", "file", "empty folder"])
def test_what_is_no_store_at_all(tmp_path, kind):
    path = tmp_path / "store"
    if kind == "file":
        path.write_text("x")
    elif kind == "empty folder":
        path.mkdir()
    with pytest.raises(UserError) as caught:
        open_store(path)
    what = "no such folder" if kind == "nothing" else "not a prepared store"
    assert one_line(caught.value).startswith(f"{path}: {what}")
