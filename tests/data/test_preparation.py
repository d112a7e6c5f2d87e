import csv
from pathlib import Path

import pytest
from builders import one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from nw_ucla_files import person, write_clip

from ssl_skeleton.data.preparation import Preparation, prepare_store, read_missing
from ssl_skeleton.data.readers import READERS
from ssl_skeleton.data.store import Store, StoreMeta, open_store
from ssl_skeleton.errors import UserError

READER = READERS["nw_ucla"]


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
    meta, result = prepare_store(READER, source, out, **options)
    store = open_store(out)
    assert store.meta == meta
    assert isinstance(meta, StoreMeta)
    return store, result


def refusal(source: Path, **options) -> str:
    """The error that preparing raises; no store is left."""
    before = set(source.parent.iterdir())
    with pytest.raises(UserError) as caught:
        prepare_store(READER, source, source.parent / "store", **options)
    assert set(source.parent.iterdir()) == before
    return one_line(caught.value)


def test_good_clips_are_all_there(source):
    store, result = prepare(source)
    assert store.names == tuple(map(name, range(10)))
    assert store.lengths.tolist() == list(range(1, 11))
    assert (result.files, result.frames) == (10, 55)
    assert (result.damaged, result.bodiless, result.missing) == ([], [], [])
    assert (store.meta.dataset, store.meta.layout) == ("nw_ucla", "kinect_v1_20")
    assert store.meta.classes == tuple(READER.classes)


def test_folders_below_are_read_too_and_progress_sees_all(source):
    (source / "deep" / "er").mkdir(parents=True)
    write_clip(source / "deep" / "er", name(50))
    seen = []

    def progress(paths, total):
        assert total == 11
        for path in paths:
            seen.append(path)
            yield path

    store, _ = prepare(source, progress=progress)
    assert store.names == tuple(path.stem for path in seen)
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


def test_a_file_that_cannot_be_opened_is_damaged(source, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(READER, "read", refuse)
    assert f"{name(0)}.json: [Errno 13]" in refusal(source)


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
        assert message.startswith(f"more than {allowed:.0%} of the 10 files are damaged; ")
        assert f"the first: {name(0)}.json: not valid JSON" in message
    elif damaged == 10:
        assert "none of its 10 files could be used (10 damaged" in refusal(source, max_damaged=allowed)
    else:
        assert len(prepare(source, max_damaged=allowed)[1].damaged) == damaged


def test_the_damage_is_counted_as_it_comes():
    result = Preparation(20, 0.1)
    result.note_damage("one")
    result.note_damage("two")
    with pytest.raises(UserError, match="more than 10% of the 20 files are damaged; the first: one; "):
        result.note_damage("three")
    assert result.damaged == ["one", "two", "three"]


def test_too_much_damage_stops_at_once(source):
    read = []

    def progress(paths, total):
        for path in paths:
            read.append(path)
            path.write_text("{")
            yield path

    assert f"the first: {name(0)}.json: " in refusal(source, max_damaged=0.2, progress=progress)
    assert len(read) == 3


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
    }


def test_an_older_store_stays_when_a_new_one_cannot_be_made(source):
    older, _ = prepare(source)
    for path in source.iterdir():
        path.write_text("{")
    assert "--overwrite" in refusal(source)
    assert "more than 5% of the 10 files are damaged" in refusal(source, overwrite=True)
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


def test_nothing_to_use(source):
    every = frozenset(map(name, range(10)))
    assert (
        "none of its 10 files could be used (0 damaged, 0 without a body, 10 listed as missing)"
        in refusal(source, missing=every)
    )


def test_of_clips_of_one_name_the_first_stays(source):
    for folder in ("b", "a"):
        (source / folder).mkdir()
        write_clip(source / folder, name(20), person(3 if folder == "a" else 7))
    store, result = prepare(source, max_damaged=0.5)
    assert result.damaged == [f"{name(20)}.json: clip '{name(20)}' was read before"]
    assert store.lengths[store.names.index(name(20))] == 3  # a/ comes before b/


@pytest.mark.parametrize("kind", ["nothing", "file", "empty folder", "other files"])
def test_no_recordings_at_all(tmp_path, kind):
    source = tmp_path / "source"
    if kind == "file":
        source.write_text("x")
    elif kind != "nothing":
        source.mkdir()
    if kind == "other files":
        (source / "a.txt").write_text("x")
    assert refusal(source).startswith(f"{source}: ")


def test_a_list_of_missing_names(tmp_path):
    path = tmp_path / "missing.txt"
    first, second = "S001C002P005R002A008", "S020C001P044R001A117"
    path.write_text(f"302 names:\n\n{first}\n  {second}.skeleton  \nS001C002\n")
    assert read_missing(path) == {first, second}


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
