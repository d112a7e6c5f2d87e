"""What holds for every reader."""

import pickle
import random
import re
import shutil
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from builders import NUMBERS, damages, one_line
from builders import examples as how_many
from examples import EXAMPLES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.readers import FORMATS, open_reader
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Outcome, Reader
from ssl_skeleton.data.recording import IMAGE, METRES, Recording, check_recording
from ssl_skeleton.data.store import EVERYTHING
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import Layout

_MOST_MEMORY = 1 << 26  # bytes that a hostile file of a few kilobytes may cost


class Example(NamedTuple):
    """A good data set: its format, its folder, the file that says what it is, and all files as they are."""

    format: str
    folder: Path
    about: Path | None
    files: dict[Path, bytes]

    def __repr__(self) -> str:
        return f"the example of {self.format}"  # not all that stands in its files

    def open(self, *roots: Path) -> Reader:
        return open_reader(self.format, roots or [self.folder], self.about)

    @property
    def labels(self) -> Path | None:
        """The list of labels that the file beside the folder names: no recording, wherever it lies."""
        named = About.read(self.about).config.labels if self.about else None
        return self.folder.parent / named if named else None

    def copy(self, folder: Path) -> None:
        """Copy the recordings and their side files to another folder."""
        for path in self.files:
            if path.is_relative_to(self.folder) and path != self.labels:
                other = folder / path.relative_to(self.folder)
                other.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, other)


@pytest.fixture(params=FORMATS, scope="module")
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    assert request.param in EXAMPLES, f"give {request.param} an example in tests/data/readers/examples.py"
    house = tmp_path_factory.mktemp(request.param)
    about = EXAMPLES[request.param](house / "source")
    files = {path: path.read_bytes() for path in sorted(house.rglob("*")) if path.is_file()}
    return Example(request.param, house / "source", about, files)


def read_entries(reader: Reader) -> Iterator[Outcome]:
    """Everything in a data set, as preparing it would find it, but for what it would not forgive."""
    for entry in reader.entries:
        try:
            outcomes = reader.read(entry)
        except (DamagedClip, OSError) as error:
            yield DamagedClip(one_line(error))
        else:
            yield from outcomes


def read_all(reader: Reader) -> list[Recording]:
    """All recordings of a data set that has no damage."""
    outcomes = list(read_entries(reader))
    assert [str(outcome) for outcome in outcomes if isinstance(outcome, DamagedClip)] == []
    return outcomes


def told(clips: Sequence[Recording]) -> list[object]:
    """Everything that recordings say, to compare them by."""
    return [
        (
            *(clip.name, clip.frames, clip.label, clip.subject, clip.camera, clip.setup, clip.repetition),
            [(track.first_frame, track.x_tvc.shape, track.x_tvc.tobytes()) for track in clip.tracks],
        )
        for clip in clips
    ]


def check(reader: Reader, clip: Recording) -> None:
    """A recording fits its facts, has plain values, and shows somebody in each track."""
    check_recording(clip, reader.facts)
    assert type(clip.name) is str
    for number in (clip.frames, clip.label, clip.subject, clip.camera, clip.setup, clip.repetition):
        assert type(number) is int  # what the journal of a preparation can keep
    assert min(clip.subject, clip.camera, clip.setup, clip.repetition) >= -1
    for track in clip.tracks:
        assert type(track.first_frame) is int
        assert track.x_tvc.dtype == np.float32
        assert track.x_tvc[0].any()  # from the first to the last frame in which it is seen
        assert track.x_tvc[-1].any()


def test_what_a_format_says_of_itself(example):
    kind = FORMATS[example.format]
    assert kind.name == example.format
    assert kind.title.isprintable()
    assert (example.about is None) <= (kind.about != "needed")
    assert (example.about is not None) <= (kind.about != "none")


def test_what_a_reader_says_of_its_data_set(example):
    facts = example.open().facts
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", facts.dataset)
    assert isinstance(facts.layout, Layout)
    assert 0 < facts.fps < 10_000
    assert all(facts.classes)
    assert len(set(facts.classes)) == len(facts.classes)
    assert facts.coordinates in (METRES, IMAGE)
    assert EVERYTHING not in facts.splits


def test_no_clip_stands_in_two_parts_of_a_split(example):
    for name, rule in example.open().facts.splits.items():
        values = [*rule.train, *rule.validation, *rule.test]
        assert len(set(values)) == len(values), name
        assert rule.train
        assert rule.test
        columns = {rule.column: np.array(sorted([*values, -1, -1]))}
        parts = rule.divide(columns)
        assert sum(map(len, parts.values())) == len(values)  # an unknown value is in none


def test_a_good_example_is_read_the_same_each_time(example):
    reader = example.open()
    clips = read_all(reader)
    for clip in clips:
        check(reader, clip)
    assert sum(bool(clip.tracks) for clip in clips) >= 2
    assert len({clip.name for clip in clips}) == len(clips)
    assert told(read_all(reader)) == told(clips)
    assert told(read_all(example.open())) == told(clips)


def test_a_copy_for_another_process_reads_the_same(example):
    reader = example.open()
    list(read_entries(reader))  # reading must leave nothing behind that cannot be copied
    copy = pickle.loads(pickle.dumps(reader))
    assert list(copy.entries) == list(reader.entries)
    assert told(read_all(copy)) == told(read_all(reader))


def packed(folder: Path, path: Path, compression: int) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_is_read_as_its_folder(example, tmp_path, compression):
    clips = told(read_all(example.open()))
    example.copy(tmp_path / "copy")
    (tmp_path / "zip").mkdir()
    reader = example.open(packed(tmp_path / "copy", tmp_path / "zip" / "source.ZIP", compression))
    assert told(read_all(reader)) == clips
    assert told(read_all(pickle.loads(pickle.dumps(reader)))) == clips
    assert list((tmp_path / "zip").iterdir()) == [tmp_path / "zip" / "source.ZIP"]


def test_where_the_folder_lies_and_what_is_hidden_in_it_makes_no_difference(example, tmp_path):
    clips = told(read_all(example.open()))
    # The clips of one's own data sets are called after the folders in which they lie.
    deeper = tmp_path / "a" / ("b c" if FORMATS[example.format].about == "none" else "")
    example.copy(deeper)
    for path in list(deeper.rglob("*")):
        if path.is_file():
            (path.parent / f"._{path.name}").write_bytes(b"\0")
    example.copy(tmp_path / "a" / ".backup")
    example.copy(tmp_path / "a" / "__MACOSX")
    assert told(read_all(example.open(tmp_path / "a"))) == clips


@pytest.mark.parametrize("kind", ["nothing", "file", "empty folder", "other files", "empty zip"])
def test_no_files_to_read(example, tmp_path, kind):
    source = tmp_path / ("source.zip" if kind == "empty zip" else "source")
    if kind == "file":
        source.write_text("x")
    elif kind == "empty zip":
        zipfile.ZipFile(source, "w").close()
    elif kind != "nothing":
        source.mkdir()
    if kind == "other files":
        (source / "holiday.doc").write_text("x")
    with pytest.raises(UserError) as caught:
        example.open(source)
    assert one_line(caught.value).startswith(f"{source}: ")


def read_damaged(example: Example) -> None:
    """Open and read everything that is there: recordings or an error that says what is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            reader = example.open()
        except UserError as error:
            one_line(error)
            return
        for outcome in read_entries(reader):
            if isinstance(outcome, DamagedClip):
                one_line(outcome)
                continue
            try:
                check_recording(outcome, reader.facts)
            except DamagedClip as error:
                one_line(error)
            else:
                check(reader, outcome)


def with_damage(example: Example, path: Path, data: bytes | None, new_name: str | None = None) -> None:
    """Read the example with one file changed, removed or renamed; then put all back."""
    path.unlink()
    changed = path.with_name(new_name or path.name)
    try:
        if data is not None:
            changed.write_bytes(data)
        read_damaged(example)
    finally:
        changed.unlink(missing_ok=True)
        path.write_bytes(example.files[path])


@given(st.data())
@settings(
    max_examples=how_many(100),
    deadline=timedelta(seconds=5),
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)
def test_any_damage_is_read_or_refused(example, data):
    path = data.draw(st.sampled_from(sorted(example.files)))
    with_damage(example, path, data.draw(damages(example.files[path])))


@given(st.data())
@settings(
    max_examples=how_many(25),
    deadline=timedelta(seconds=5),
    suppress_health_check=[HealthCheck.differing_executors],
)
def test_any_name_is_read_or_refused(example, data):
    path = data.draw(st.sampled_from(sorted(example.files)))
    stem = bytearray(path.stem.encode())
    place = data.draw(st.integers(0, len(stem)))
    piece = data.draw(st.sampled_from(["", "0", "99999", "-1", "\u0663", "_", " ", "x", "\n", ",", '"']))
    name = stem[:place] + piece.encode() + stem[place + data.draw(st.integers(0, 3)) :]
    with_damage(example, path, example.files[path], name.decode(errors="replace") + path.suffix)


def test_a_file_that_is_gone_empty_or_of_another_kind_is_read_or_refused(example):
    others = [
        *(b"", b"\0" * 100, b"\xff\xfe\xff", b"\n" * 100, b"1\n" * 100, b"-1\n", b"99999999999\n", b"nan"),
        *(b"[" * 100_000, b"{}", b"[[", b"PK\x03\x04", b"1 2 3\n" * 1000, b"1,2,3\n" * 1000, b" "),
    ]
    for path in example.files:
        for data in (None, *others):
            with_damage(example, path, data)


def test_a_file_that_goes_away_after_opening_is_an_error_of_the_system(example):
    reader = example.open()
    for entry in reader.entries:
        path = example.folder / entry.path
        path.unlink()
        with pytest.raises(OSError, match="No such file"):
            reader.read(entry)
        path.write_bytes(example.files[path])


def hostile(data: bytes, numbers: int) -> Iterator[bytes]:
    """`data` with one number replaced: of those that begin it, where counts stand, and of some further on."""
    found = list(re.finditer(rb"-?\d[\d.]*", data))
    chosen = [*found[:numbers], *found[numbers :: max(1, len(found) // numbers)]]
    for match in chosen:
        for other in NUMBERS:
            yield data[: match.start()] + other + data[match.end() :]
    for place in range(0, min(len(data), 8 * numbers), 4):  # numbers in binary files
        for word in (b"\xff\xff\xff\x7f", b"\xff" * 4):
            yield data[:place] + word + data[place + 4 :]


def test_counts_cost_no_memory_that_is_not_there(example):
    files = {path.suffix + str(path.parent): path for path in example.files}  # one of a kind
    cases = [(path, data) for path in files.values() for data in hostile(example.files[path], how_many(8))]
    chosen = random.Random(0).sample(cases, min(len(cases), how_many(60)))
    for path, data in chosen:
        tracemalloc.start()
        try:
            with_damage(example, path, data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < _MOST_MEMORY, data[:200]
