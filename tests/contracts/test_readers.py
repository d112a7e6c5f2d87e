"""What holds for every reader."""

import warnings
from pathlib import Path

import ntu_files
import nw_ucla_files
import pytest
from builders import damages, one_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.readers import READERS
from ssl_skeleton.data.readers.base import DamagedClip, Reader, Recording
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import load_layout


@pytest.fixture(params=READERS, scope="module")
def reader(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


def write_example(dataset: str, folder: Path) -> Path:
    """A good file of a data set, with somebody in it."""
    if dataset == "nw_ucla":
        return nw_ucla_files.write_clip(folder)
    if dataset in ("ntu60", "ntu120", "synthetic"):
        bodies = {
            "72057594037944738": (0, ntu_files.person(3)),
            "72057594037944739": (1, ntu_files.person(2)),
        }
        return ntu_files.write_clip(folder, ntu_files.clip_of(bodies, 3))
    raise AssertionError(f"give {dataset} a file here")


@pytest.fixture(scope="module")
def example(reader: Reader, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A good file and what stands in it."""
    path = write_example(reader.dataset, tmp_path_factory.mktemp(reader.dataset))
    return path, path.read_bytes()


def check(reader: Reader, clips: list[Recording]) -> None:
    """Recordings fit the layout, the classes and their own length."""
    joints = len(load_layout(reader.layout).joints)
    for clip in clips:
        assert clip.name
        assert -1 <= clip.label < len(reader.classes)
        for track in clip.tracks:
            assert track.x_tvc.shape[1:] == (joints, 3)
            assert abs(track.x_tvc).max() <= 1000  # and so neither NaN nor infinite
            assert track.x_tvc.any()
            assert 0 <= track.first_frame < track.first_frame + len(track.x_tvc) <= clip.frames


def test_what_a_reader_says_of_its_data_set(reader):
    assert READERS[reader.dataset] is reader
    assert load_layout(reader.layout).name == reader.layout
    assert reader.fps > 0
    assert reader.classes
    assert all(reader.classes)
    assert len(set(reader.classes)) == len(reader.classes)


def test_a_good_file_is_read_the_same_each_time(reader, example):
    path, data = example
    path.write_bytes(data)
    assert list(reader.files(path.parent)) == [path]
    clips, again = reader.read(path), reader.read(path)
    check(reader, clips)
    assert clips
    assert all(clip.tracks for clip in clips)
    assert [clip.name for clip in clips] == [clip.name for clip in again]
    for one, two in zip(clips, again, strict=True):
        assert [t.x_tvc.tobytes() for t in one.tracks] == [t.x_tvc.tobytes() for t in two.tracks]


@pytest.mark.parametrize("kind", ["nothing", "file", "empty folder"])
def test_no_files_to_read(reader, tmp_path, kind):
    source = tmp_path / "source"
    if kind == "file":
        source.write_text("x")
    elif kind == "empty folder":
        source.mkdir()
    with pytest.raises(UserError) as caught:
        reader.files(source)
    assert one_line(caught.value).startswith(f"{source}: ")


def test_files_come_sorted_by_name(reader, example, tmp_path):
    suffix = example[0].suffix
    places = ["z/a", "b", "a/d", "c", "y/a"]
    for place in places:
        path = tmp_path / f"{place}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (tmp_path / "b.other").write_text("x")
    (tmp_path / f"folder{suffix}").mkdir()
    wanted = [tmp_path / f"{place}{suffix}" for place in ("y/a", "z/a", "b", "c", "a/d")]
    assert list(reader.files(tmp_path)) == wanted


def read_damaged(reader: Reader, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            clips = reader.read(path)
        except DamagedClip as error:
            one_line(error)
        else:
            check(reader, list(clips))


@given(st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
def test_any_damage_is_read_or_refused(reader, example, data):
    path, good = example
    read_damaged(reader, path, data.draw(damages(good)))


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 100, b"\xff\xfe\xff", b"1\n" * 100, b"-1\n", b"99999999999\n", b"[[", b"nan"]
)
def test_files_of_another_kind_are_read_or_refused(reader, example, data):
    read_damaged(reader, example[0], data)


def test_a_file_that_is_gone_is_an_error_of_the_system(reader, example):
    path = example[0].parent / "gone" / example[0].name
    with pytest.raises(OSError, match="No such file"):
        reader.read(path)
