import csv
from pathlib import Path

import numpy as np
import pytest
from builders import one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import MadeUp, write_file, write_files
from nw_ucla_files import person, write_clip

from ssl_skeleton.data.preparation import preparation
from ssl_skeleton.data.preparation.preparation import Preparation, prepare_store, read_missing
from ssl_skeleton.data.preparation.reading import useful_processes
from ssl_skeleton.data.readers import open_reader
from ssl_skeleton.data.store import Store, StoreMeta, open_store
from ssl_skeleton.errors import DamagedClip, UserError


def name(number: int) -> str:
    return f"a01_s01_e{number:02}_v01"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of ten good clips of 1 to 10 frames."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(10):
        write_clip(folder, name(number), person(number + 1))
    return folder


def prepare(source: Path, **options) -> tuple[Store, Preparation]:
    out = source.parent / "store"
    meta, result = prepare_store(open_reader("nw_ucla", [source]), out, **options)
    store = open_store(out)
    assert store.meta == meta
    assert isinstance(meta, StoreMeta)
    return store, result


def refusal(source: Path, **options) -> str:
    """The error that preparing raises; no store is left."""
    before = set(source.parent.iterdir())
    with pytest.raises(UserError) as caught:
        prepare_store(open_reader("nw_ucla", [source]), source.parent / "store", **options)
    assert set(source.parent.iterdir()) == before
    return one_line(caught.value)


def test_good_clips_are_all_there(source):
    store, result = prepare(source)
    assert store.names == tuple(map(name, range(10)))
    assert store.lengths.tolist() == list(range(1, 11))
    assert (result.files, result.frames) == (10, 55)
    assert (result.damaged, result.bodiless, result.missing) == ([], [], [])
    assert (result.clips, result.resumed) == (10, 0)
    assert (store.meta.dataset, store.layout.name) == ("nw_ucla", "kinect_v1_20")
    facts = open_reader("nw_ucla", [source]).facts
    assert (store.meta.classes, store.meta.fps) == (facts.classes, 30.0)
    assert (store.meta.splits, store.meta.source) == (facts.splits, str(source))


def test_folders_below_are_read_too_and_progress_sees_all(source):
    (source / "deep" / "er").mkdir(parents=True)
    write_clip(source / "deep" / "er", name(50))
    seen = []

    def progress(readings, total, done):
        assert (total, done) == (11, 0)
        for entry, outcomes in readings:
            seen.append(entry.stem)
            yield entry, outcomes

    store, _ = prepare(source, progress=progress)
    assert store.names == tuple(seen)
    assert name(50) in store.names


def test_damaged_clips_are_listed_and_skipped(source):
    (source / f"{name(3)}.json").write_text("{")
    write_clip(source, name(5), [[[float("nan")] * 3] * 20])
    (source / "notes.json").write_text("{}")
    store, result = prepare(source, max_damaged=0.3)
    assert store.names == tuple(name(number) for number in range(10) if number not in (3, 5))
    assert (result.files, result.frames) == (11, 55 - 4 - 6)
    first, second, third = result.damaged
    assert first.startswith(f"{name(3)}.json: not valid JSON")
    assert second == f"{name(5)}.json: frame 0, joint 0: coordinate x is nan"
    assert third == "notes.json: the file name does not read aXX_sXX_eXX_vXX"


def test_a_file_that_cannot_be_opened_is_damaged(source):
    path = source / f"{name(3)}.json"
    path.unlink()
    path.symlink_to(source / "gone")
    _, result = prepare(source, max_damaged=0.1)
    assert result.damaged == [f"{name(3)}.json: cannot be read (No such file or directory)"]


def test_names_that_are_no_text_are_shown_as_far_as_they_can_be(source):
    (source / "\udcff.json").write_bytes(b"{}")  # a byte that is no UTF-8
    store, result = prepare(source, max_damaged=0.1)
    assert len(result.damaged) == 1
    with (store.path / "skipped.csv").open(newline="", encoding="utf-8") as file:
        ((_, what),) = list(csv.reader(file))[1:]
    assert "the file name does not read" in what


def test_a_folder_whose_name_is_no_text_is_read(tmp_path):
    source = tmp_path / "\udcff"
    source.mkdir()
    write_clip(source, name(1))
    store, _ = prepare(source)
    assert store.meta.source == f"{tmp_path}/\\udcff"


def test_coordinates_that_fit_no_body_are_damage(tmp_path):
    write_file(
        tmp_path / "source", "a", {"name": "good", "frames": 2}, {"name": "far", "frames": 2, "x": 2e3}
    )
    write_file(tmp_path / "source", "b", {"name": "two\nlines", "frames": 2})
    write_file(tmp_path / "source", "c", {"name": "c", "frames": 2, "label": 2})
    _, result = prepare_store(MadeUp(tmp_path / "source"), tmp_path / "store", max_damaged=1)
    assert result.damaged == [
        "a.json: clip 'far': frame 0, joint 0: coordinate x is 2000.0",
        "b.json: clip 'two\\nlines': 'two\\nlines' is no name for a clip",
        "c.json: clip 'c': label 2 is not one of 2 classes",
    ]


@given(st.integers(0, 10), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_more_damage_than_allowed_stops_and_leaves_no_store(tmp_path_factory, damaged, allowed):
    source = tmp_path_factory.mktemp("share") / "source"
    source.mkdir()
    for number in range(10):
        write_clip(source, name(number))
    for number in range(damaged):
        (source / f"{name(number)}.json").write_text("{")
    if damaged > allowed * 10:
        message = refusal(source, max_damaged=allowed)
        assert message.startswith(f"more than {allowed:.0%} of the 10 files or clips are damaged; ")
        assert f"the first: {name(0)}.json: not valid JSON" in message
    elif damaged == 10:
        assert "none of its 10 files could be used (10 damaged" in refusal(source, max_damaged=allowed)
    else:
        assert len(prepare(source, max_damaged=allowed)[1].damaged) == damaged


def test_the_damage_is_counted_as_it_comes():
    result = Preparation(20, 0.1)
    result.damaged += ["one", "two"]
    result.check_damage()
    result.damaged.append("three")
    with pytest.raises(
        UserError, match="more than 10% of the 20 files or clips are damaged; the first: one; --max-damaged"
    ):
        result.check_damage()


@pytest.mark.parametrize(("files", "clips", "damaged"), [(1, 95, 5), (2, 0, 0), (100, 3, 5), (10, 95, 5)])
def test_the_share_is_one_of_files_or_of_clips_whichever_are_more(files, clips, damaged):
    result = Preparation(files, 0.05, clips=clips, damaged=["x"] * damaged)
    result.check_damage()
    result.damaged.append("one more")
    with pytest.raises(UserError, match=f"5% of the {max(files, clips + damaged + 1)} files or clips"):
        result.check_damage()


@given(st.integers(0, 20), st.floats(0, 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_share_of_the_clips_of_one_file(tmp_path_factory, damaged, allowed, comes_first):
    house = tmp_path_factory.mktemp("share")
    good = [{"name": str(number), "frames": 2} for number in range(20 - damaged)]
    bad = [{"damaged": "made so"}] * damaged
    write_file(house / "source", "all", *(bad + good if comes_first else good + bad))
    if damaged > allowed * 20 + 1e-9 or damaged == 20:
        with pytest.raises(
            UserError, match=r"of the 20 files or clips are|none of its 1 files could be used"
        ):
            prepare_store(MadeUp(house / "source"), house / "store", max_damaged=allowed)
        assert list(house.iterdir()) == [house / "source"]
    else:
        _, result = prepare_store(MadeUp(house / "source"), house / "store", max_damaged=allowed)
        assert (result.clips, len(result.damaged)) == (20 - damaged, damaged)


def test_the_share_of_the_clips_of_several_files_does_not_depend_on_their_order(tmp_path):
    for number in range(4):
        clips = [{"name": f"{number} {part}", "frames": 1} for part in range(25)]
        if number == 0:
            clips[:5] = [{"damaged": "made so"}] * 5
        write_file(tmp_path / "source", f"{number}", *clips)
    _, result = prepare_store(MadeUp(tmp_path / "source"), tmp_path / "store", max_damaged=0.05)
    assert (result.clips, len(result.damaged)) == (95, 5)


def test_too_much_damage_stops_at_once(source):
    for number in range(10):
        (source / f"{name(number)}.json").write_text("{")
    taken = []

    def progress(readings, total, done):
        for reading in readings:
            taken.append(reading)
            yield reading

    assert f"the first: {name(0)}.json: " in refusal(source, max_damaged=0.2, progress=progress)
    assert len(taken) == 3


def test_all_that_was_skipped_is_in_the_store(source):
    (source / f"{name(3)}.json").write_text("{")
    write_clip(source, name(2), [])
    store, result = prepare(source, max_damaged=0.1, missing=frozenset({name(1)}))
    with (store.path / "skipped.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [
        ["why", "what"],
        ["damaged", result.damaged[0]],
        ["without a body", name(2)],
        ["listed as missing", name(1)],
    ]
    assert result.skipped == {
        "damaged": result.damaged,
        "without a body": [name(2)],
        "listed as missing": [name(1)],
        "in part, with more than two bodies": [],
    }


def test_an_older_store_stays_when_a_new_one_cannot_be_made(source):
    older, _ = prepare(source)
    for path in source.iterdir():
        path.write_text("{")
    assert "--overwrite" in refusal(source)
    assert "more than 5% of the 10 files or clips are damaged" in refusal(source, overwrite=True)
    assert open_store(older.path).names == older.names


def test_clips_without_anybody_are_listed_and_skipped(source):
    write_clip(source, name(2), [])
    write_clip(source, name(4), [[[0.0] * 3] * 20] * 5)
    store, result = prepare(source)
    assert result.bodiless == [name(2), name(4)]
    assert (len(store), result.damaged) == (8, [])


def test_clips_on_the_list_of_missing_are_not_read(source):
    (source / f"{name(1)}.json").write_text("{")
    store, result = prepare(source, missing=frozenset({name(1), name(7), "elsewhere"}))
    assert result.missing == [name(1), name(7)]
    assert (len(store), result.damaged) == (8, [])


def test_clips_on_the_list_of_missing_are_left_out_of_a_file_of_many(tmp_path):
    reader = MadeUp(write_files(tmp_path / "source", 6))
    _, result = prepare_store(
        reader, tmp_path / "store", missing=frozenset({"clip 4 1", "0003"}), max_damaged=1
    )
    assert result.missing == ["0003", "clip 4 1"]
    assert "clip 4 1" not in open_store(tmp_path / "store").names
    assert "clip 4 0" in open_store(tmp_path / "store").names


def test_nothing_to_use(source):
    every = frozenset(map(name, range(10)))
    assert "none of its 10 files could be used (10 listed as missing)" in refusal(source, missing=every)


def test_of_clips_of_one_name_the_first_stays(source):
    for folder in ("b", "a"):
        (source / folder).mkdir()
        write_clip(source / folder, name(20), person(3 if folder == "a" else 7))
    store, result = prepare(source, max_damaged=0.5)
    assert result.damaged == [f"b/{name(20)}.json: clip '{name(20)}' was read before"]
    assert store.lengths[store.names.index(name(20))] == 3  # a/ comes before b/


def test_recordings_at_another_rate(source):
    store, result = prepare(source, fps=15)
    assert store.meta.fps == 15
    assert store.lengths.tolist() == [(frames + 1) // 2 for frames in range(1, 11)]
    assert result.frames == sum(store.lengths)
    before = np.array(person(10), np.float32)[::2]
    number, row, first, count = store.tracks[-1]
    assert (number, first, count) == (9, 0, 5)
    assert np.allclose(store.frames_rvc[row : row + count], before, atol=1e-6)


def test_at_their_own_rate_recordings_stay_as_they_are(source):
    plain, _ = prepare(source)
    before = {path.name: path.read_bytes() for path in plain.path.iterdir()}
    same, _ = prepare(source, fps=30, overwrite=True)
    assert {path.name: path.read_bytes() for path in same.path.iterdir()} == before


@pytest.mark.parametrize("fps", [1e-300, 0.02, 3001, 1e300])
def test_a_rate_that_makes_no_sense_is_refused(source, fps):
    assert "is too far from the 30 frames a second of the recordings" in refusal(source, fps=fps)


def test_useful_processes():
    assert [useful_processes(files) for files in (0, 1, 799)] == [1, 1, 1]
    assert 1 <= useful_processes(10**6) <= 10**6 // 400


def test_damage_is_no_other_error():
    assert not issubclass(DamagedClip, UserError)


def test_a_list_of_missing_names(tmp_path):
    path = tmp_path / "missing.txt"
    first, second = "S001C002P005R002A008", "S020C001P044R001A117"
    path.write_text(f"302 names:\n\n{first}\n  {second}.skeleton  \nwalk/01\ntake.v1\n")
    names = {first, second, f"{second}.skeleton", "walk/01", "take.v1"}
    assert read_missing(path) == names  # a clip's name may have a dot or a folder in it


@pytest.mark.parametrize("data", [None, b"", b"no names\n", b"\xff\xfe"])
def test_a_list_without_names_is_refused(tmp_path, data):
    path = tmp_path / "missing.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_missing(path)
    assert one_line(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(("file", "count"), [("ntu60_missing.txt", 302), ("ntu120_missing.txt", 535)])
def test_the_published_lists(recordings, file, count):
    assert len(read_missing(recordings("ntu") / file)) == count


def test_a_store_that_outgrows_its_sources_is_not_written(source, monkeypatch):
    monkeypatch.setattr(preparation, "_MOST_BYTES", 0)
    monkeypatch.setattr(preparation, "_MOST_GROWTH", 0.01)
    assert "so far the store is over 0.01 times as large as all its sources" in refusal(source)
