"""Preparations by several processes, and such that are broken off and taken up again."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import examples, one_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up import FACTS, MadeUp, write_file, write_files

from ssl_skeleton.cli import run_command
from ssl_skeleton.data.preparation import preparation
from ssl_skeleton.data.preparation.preparation import prepare_store, read_entries
from ssl_skeleton.data.readers import open_reader
from ssl_skeleton.data.store import open_store
from ssl_skeleton.errors import UserError

FILES = 11
CHUNK = 3  # files between two lines of the journal here
MISSING = frozenset({"0005", "clip 8 1"})


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(preparation, "_CHUNK", CHUNK)


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def partial(out: Path) -> Path:
    return out.parent / f".{out.name}.partial"


def prepare(source: Path, out: Path, **options):
    options = {"max_damaged": 0.2, "missing": MISSING} | options
    return prepare_store(MadeUp(source), out, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Files of no clip up to three, with damage, nobody and doubled names among them."""
    folder = write_files(tmp_path_factory.mktemp("recordings") / "source", FILES - 1)
    write_file(
        folder, "0010", {"name": "clip 1 1", "frames": 3}, {"name": 'é, "last"', "frames": 6, "bodies": 3}
    )
    return folder


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory) -> dict[str, bytes]:
    """The files of the store that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole") / "store"
    _, result = prepare(source, out)
    assert all(result.skipped.values())
    assert result.resumed == 0
    return contents(out)


class Stop(Exception):
    """An error of any other kind."""


def stopping(after: int, reason: BaseException | None, taken: list | None = None, files: int = FILES - 1):
    """A progress that is broken off when so many files have been taken, seen from the first one."""

    def progress(readings, total, done):
        assert total == files  # one of the made-up ones is on the list of missing ones
        for number, reading in enumerate(readings, done):
            if number == after and reason is not None:
                raise reason
            if taken is not None:
                taken.append(reading[0].stem)
            yield reading

    return progress


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_writes_the_same(source, whole, tmp_path, processes):
    prepare(source, tmp_path / "store", processes=processes)
    assert contents(tmp_path / "store") == whole


@pytest.mark.parametrize(
    "reason", [KeyboardInterrupt(), SystemExit(143), OSError(28, "No space left"), Stop()]
)
def test_broken_off_anywhere_it_goes_on_to_the_same_store(source, whole, tmp_path, reason):
    out = tmp_path / "store"
    for after in range(FILES - 1):
        with pytest.raises(type(reason)) as caught:
            prepare(source, out, progress=stopping(after, reason))
        assert list(tmp_path.iterdir()) == [partial(out)]
        taken = []
        _, result = prepare(source, out, progress=stopping(-1, None, taken))
        assert contents(out) == whole
        assert result.resumed == after // CHUNK * CHUNK
        assert len(taken) == FILES - 1 - result.resumed
        if isinstance(reason, KeyboardInterrupt):
            kept = f"{result.resumed} of {FILES - 1} files are kept; the same command goes on from there"
            assert str(caught.value) == kept
        assert list(tmp_path.iterdir()) == [out]
        shutil.rmtree(out)


def test_broken_off_again_and_again_by_any_number_of_processes(source, whole, tmp_path):
    out = tmp_path / "store"
    for turn, after in enumerate((4, 4, 7, 9)):
        with pytest.raises(KeyboardInterrupt):
            prepare(source, out, progress=stopping(after, KeyboardInterrupt()), processes=1 + turn % 2)
    _, result = prepare(source, out)
    assert result.resumed == 9
    assert contents(out) == whole


def test_what_was_found_before_is_told_again(source, tmp_path):
    _, plain = prepare(source, tmp_path / "plain")
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "store", progress=stopping(10 - 1, KeyboardInterrupt()))
    _, resumed = prepare(source, tmp_path / "store")
    assert resumed.resumed == 9
    assert replace(resumed, resumed=0) == plain


@pytest.mark.parametrize("step", ["journal", "finish", "rename"])
def test_broken_off_while_it_ends(source, whole, tmp_path, monkeypatch, step):
    out = tmp_path / "store"

    def stop(*_, **__):
        raise KeyboardInterrupt

    place = {
        "journal": (preparation.Journal, "remove"),
        "finish": (preparation.StoreWriter, "finish"),
        "rename": (Path, "rename"),
    }[step]
    with monkeypatch.context() as patch:
        patch.setattr(*place, stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(source, out)
    assert not out.exists()
    prepare(source, out)
    assert contents(out) == whole


def half_done(source: Path, out: Path) -> Path:
    """What is left when it is broken off after two lines of the journal."""
    with pytest.raises(KeyboardInterrupt):
        prepare(source, out, progress=stopping(2 * CHUNK + 1, KeyboardInterrupt()))
    return partial(out)


def test_a_journal_that_is_cut_off_at_any_byte(source, whole, tmp_path):
    folder = half_done(source, tmp_path / "store")
    data = (folder / "journal.jsonl").read_bytes()
    assert data.count(b"\n") == 2
    first = data.index(b"\n")
    shutil.copytree(folder, tmp_path / "kept")
    for end in {
        *range(0, len(data), 400 // examples(20)),
        first - 1,
        first,
        first + 1,
        len(data) - 1,
        len(data),
    }:
        shutil.copytree(tmp_path / "kept", folder, dirs_exist_ok=True)
        (folder / "journal.jsonl").write_bytes(data[:end])
        _, result = prepare(source, tmp_path / "store")
        assert result.resumed == CHUNK * data[:end].count(b"\n")
        assert contents(tmp_path / "store") == whole
        shutil.rmtree(tmp_path / "store")


@given(st.integers(-5000, 5000))
@settings(
    max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_frames_that_are_longer_or_shorter_than_the_journal_tells(source, whole, tmp_path_factory, more):
    out = tmp_path_factory.mktemp("frames") / "store"
    folder = half_done(source, out)
    path = folder / "frames.npy"
    size = path.stat().st_size
    os.truncate(path, max(0, size + more))
    _, result = prepare(source, out)
    assert contents(out) == whole
    assert result.resumed in (0, 2 * CHUNK)
    assert more < 0 or result.resumed


def test_frames_that_are_gone(source, whole, tmp_path):
    (half_done(source, tmp_path / "store") / "frames.npy").unlink()
    _, result = prepare(source, tmp_path / "store")
    assert result.resumed == 0
    assert contents(tmp_path / "store") == whole


def test_what_a_killed_process_leaves_is_not_in_the_store(source, whole, tmp_path):
    folder = half_done(source, tmp_path / "store")
    for name in (".clips.csv.ab12", ".journal.jsonl.x_y", "tracks.npy", "meta.json", "clips.csv"):
        (folder / name).write_bytes(b"half")
    prepare(source, tmp_path / "store")
    assert contents(tmp_path / "store") == whole


@pytest.mark.parametrize(
    "change", ["fps", "missing", "stamp", "more files", "side file", "facts", "fewer files"]
)
def test_what_changes_the_store_starts_afresh(tmp_path, change):
    source = write_files(tmp_path / "source", FILES - 1)
    (source / "labels.txt").write_text("one")
    write_file(source, "0010", {"name": "last", "frames": 3})
    out = tmp_path / "store"
    half_done(source, out)
    options, facts = {"max_damaged": 0.2, "missing": MISSING}, FACTS
    if change == "fps":
        options["fps"] = 15.0
    elif change == "missing":
        options["missing"] = frozenset({"0004"})
    elif change == "stamp":
        write_file(source, "0001", {"name": "another", "frames": 6, "camera": 2})
    elif change == "more files":
        write_file(source, "0000a", {"name": "more", "frames": 1})
    elif change == "fewer files":
        (source / "0002.json").unlink()
    elif change == "side file":
        (source / "labels.txt").write_text("others")
    else:
        facts = replace(FACTS, classes=("kick", "wave"))
    _, result = prepare_store(MadeUp(source, facts=facts), out, **options)
    assert result.resumed == 0
    prepare_store(MadeUp(source, facts=facts), tmp_path / "plain", **options)
    assert contents(out) == contents(tmp_path / "plain")


@pytest.mark.parametrize("change", ["unit", "label", "nothing"])
def test_what_is_told_about_ones_own_recordings_changes_the_store(tmp_path, change):
    source, about, out = tmp_path / "source", tmp_path / "about.yaml", tmp_path / "store"
    source.mkdir()
    for number in range(8):
        np.save(source / f"{number}.npy", np.ones((3, 20, 3), np.float32))
    labels = ["clip,label", *(f"{number},{'sit' if number % 2 else 'stand'}" for number in range(8))]
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    text = "dataset: mine\nfps: 30\nlayout: kinect_v1_20\nlabels: labels.csv\nunit: "
    about.write_text(f"{text} 1.0")
    progress = stopping(7, KeyboardInterrupt(), files=8)
    with pytest.raises(KeyboardInterrupt):
        prepare_store(open_reader("own", [source], about), out, progress=progress)
    if change == "unit":
        about.write_text(f"{text} 0.001")
    elif change == "label":
        (tmp_path / "labels.csv").write_text("\n".join(labels).replace("0,stand", "0,sit"))
    _, result = prepare_store(open_reader("own", [source], about), out)
    assert result.resumed == (6 if change == "nothing" else 0)
    prepare_store(open_reader("own", [source], about), tmp_path / "plain")
    assert contents(out) == contents(tmp_path / "plain")


def test_a_stricter_bound_holds_for_what_was_read_before(source, tmp_path, monkeypatch):
    out = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_CHUNK", 1)
        patch.setattr(preparation.StoreWriter, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(source, out)
    with pytest.raises(UserError, match="more than 1% of the"):
        prepare(source, out, max_damaged=0.01)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_of_the_users_leaves_nothing(source, tmp_path):
    half_done(source, tmp_path / "store")
    with pytest.raises(UserError, match="are damaged"):
        prepare(source, tmp_path / "store", max_damaged=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", ["interrupt", "user"])
def test_a_reader_that_ends_it_all(source, tmp_path, kind, processes):
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    write_file(folder, "0007", {"raise": kind})
    out = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt if kind == "interrupt" else UserError):
        prepare(folder, out, processes=processes)
    assert not out.exists()
    assert partial(out).exists() == (kind == "interrupt")


def test_two_at_once(source, whole, tmp_path):
    out = tmp_path / "store"

    def progress(readings, total, done):
        with pytest.raises(UserError) as caught:
            prepare(source, out)
        assert one_line(caught.value).startswith(f"{partial(out)}: another process (")
        yield from readings

    prepare(source, out, progress=progress)
    assert contents(out) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from made_up import MadeUp
from ssl_skeleton.data.preparation import preparation

def progress(readings, total, done):
    for number, reading in enumerate(readings):
        if number == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield reading

if __name__ == "__main__":
    preparation._CHUNK = int(sys.argv[4])
    missing = frozenset(sys.argv[6:])
    preparation.prepare_store(
        MadeUp(Path(sys.argv[1])), Path(sys.argv[2]),
        missing=missing, max_damaged=0.2, processes=int(sys.argv[5]), progress=progress,
    )
"""


def in_another_process(script: Path, *words: object) -> subprocess.Popen:
    paths = [str(Path(__file__).parent / "readers"), *sys.path]
    return subprocess.Popen(  # noqa: S603
        [sys.executable, str(script), *map(str, words)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("after", "processes"), [(0, 1), (CHUNK, 1), (2 * CHUNK + 2, 1), (2 * CHUNK, 2)])
def test_a_process_that_is_killed(source, whole, tmp_path, after, processes):
    script, out = tmp_path / "killed.py", tmp_path / "store"
    script.write_text(KILLED)
    with in_another_process(script, source, out, after, CHUNK, processes, *MISSING) as process:
        assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    assert partial(out).exists()
    _, result = prepare(source, out)
    assert result.resumed == after // CHUNK * CHUNK
    assert contents(out) == whole


def processes_that_name(text: str) -> list[int]:
    """The processes whose environment holds `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [int(path.parent.name)] if text.encode() in path.read_bytes() else []
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc to look for processes")
def test_no_reading_process_outlives_one_that_is_killed(source, tmp_path, monkeypatch):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    mark = f"MARK={tmp_path}"
    monkeypatch.setenv("MARK", str(tmp_path))
    seen = 0
    with in_another_process(script, source, tmp_path / "store", 2, CHUNK, 2) as process:
        while process.poll() is None:
            seen = max(seen, len(processes_that_name(mark)))
    monkeypatch.delenv("MARK")
    assert seen > 2
    until = time.monotonic() + 10
    while (left := processes_that_name(mark)) and time.monotonic() < until:
        time.sleep(0.1)
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert not left


def test_a_reading_process_that_dies_is_one_clear_error(source, tmp_path, capsys):
    folder = tmp_path / "source"
    shutil.copytree(source, folder)
    write_file(folder, "0007", {"raise": "death"})
    assert run_command(lambda _: prepare(folder, tmp_path / "store", processes=2), []) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "a reading process died" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_readings_come_in_order_and_not_far_ahead_of_who_takes_them(source):
    reader = MadeUp(source)
    readings = read_entries(reader, reader.entries, 30.0, chunk=2, processes=2)
    assert [entry for entry, _ in readings] == reader.entries
    alone = read_entries(reader, reader.entries, 30.0, chunk=2)
    assert next(alone)[0] == reader.entries[0]
    alone.close()


def test_the_table_of_what_was_skipped_is_whole_after_going_on(source, tmp_path):
    half_done(source, tmp_path / "store")
    prepare(source, tmp_path / "store")
    with (tmp_path / "store" / "skipped.csv").open(newline="") as file:
        _, *lines = list(csv.reader(file))
    assert ["damaged", "0003.json: made so"] in lines
    assert ["damaged", "0010.json: clip 'clip 1 1' was read before"] in lines
    assert ["listed as missing", "clip 8 1"] in lines
    assert len(lines) == len({tuple(line) for line in lines})
    assert open_store(tmp_path / "store").names[-1] == 'é, "last"'
