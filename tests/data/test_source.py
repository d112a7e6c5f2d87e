import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import pytest
from builders import damages, examples, one_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.source import Entry, Source, text_of
from ssl_skeleton.errors import DamagedClip, UserError

MOST = 1 << 20
FILES = {"b.json": b"bb", "a/c.json": b"c", "a/b.JSON": b"", "a/x.txt": b"x"}
SECONDS = (1980, 1, 1, 0, 0, 0)


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, SECONDS), data, compression)
    return path


def sources(folder: Path, files: dict[str, bytes]) -> list[Source]:
    """The same files as a folder and as two kinds of archive."""
    stored = write_zip(folder / "stored.zip", files, zipfile.ZIP_STORED)
    deflated = write_zip(folder / "deflated.ZIP", files)
    return [Source(write_files(folder / "folder", files)), Source(stored), Source(deflated)]


def test_files_are_found_by_name_in_any_case_sorted_by_name_then_place(tmp_path):
    for source in sources(tmp_path, FILES):
        found = source.find("*.json", "clips")
        assert [entry.path for entry in found] == ["a/b.JSON", "b.json", "a/c.json"]
        assert [source.read(entry, MOST) for entry in found] == [b"", b"bb", b"c"]
        assert source.matching("X.*") == [Entry(0, "a/x.txt")]
        assert source.matching("*.mat") == []


def test_what_an_entry_is_called():
    entry = Entry(0, "a/b/S001.skeleton.txt")
    assert (entry.name, entry.stem, entry.folder) == ("S001.skeleton.txt", "S001.skeleton", "a/b")
    assert Entry(0, "top.txt").folder == ""


def test_the_same_name_in_several_places_comes_in_the_order_of_the_places(tmp_path):
    one = write_files(tmp_path / "one", {"z/a.json": b"1", "b/a.json": b"2"})
    other = write_zip(tmp_path / "other.zip", {"a.json": b"3"})
    single = tmp_path / "a.json"
    single.write_bytes(b"4")
    source = Source(one, other, single)
    found = source.find("*.json", "clips")
    assert [source.read(entry, MOST) for entry in found] == [b"2", b"1", b"3", b"4"]
    assert str(source) == f"{one}, {other}, {single}"


def test_hidden_files_are_passed_over(tmp_path):
    hidden = [".x.json", "._b.json", ".git/x.json", "__MACOSX/x.json", "a/.cache/deep/x.json"]
    for source in sources(tmp_path, FILES | dict.fromkeys(hidden, b"x")):
        assert len(source.matching("*.json")) == 3


def test_folders_that_are_named_like_files_are_none(tmp_path):
    (tmp_path / "folder" / "x.json").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("x.json/", b"")
    for source in (Source(tmp_path / "folder"), Source(tmp_path / "x.zip")):
        assert source.matching("*") == []


def test_a_folder_that_is_named_like_an_archive_is_a_folder(tmp_path):
    source = Source(write_files(tmp_path / "x.zip", FILES))
    assert len(source.matching("*.json")) == 3


@pytest.mark.parametrize("place", [1, 2])
def test_a_copy_for_another_process_opens_its_archives_itself(tmp_path, place):
    source = sources(tmp_path, FILES)[place]
    entry = source.matching("b.json")[-1]
    assert source.read(entry, MOST) == b"bb"
    copy = pickle.loads(pickle.dumps(source))
    assert copy.matching("*") == []  # it is told what to read
    assert copy.read(entry, MOST) == b"bb"


def test_no_more_is_read_than_a_file_may_have(tmp_path):
    for source in sources(tmp_path, {"a.txt": b"12345678"}):
        (entry,) = source.matching("*")
        assert source.read(entry, 8) == b"12345678"
        with pytest.raises(DamagedClip, match="more than the 7 bytes"):
            source.read(entry, 7)


def test_a_stamp_changes_with_its_file(tmp_path):
    for source in sources(tmp_path, {"a.txt": b"1", "b.txt": b"2"}):
        one, other = source.matching("*")
        assert source.stamp(one) == source.stamp(one)
        assert source.stamp(one) != source.stamp(other)
    path = tmp_path / "folder" / "a.txt"
    source = Source(path)
    before = source.stamp(Entry(0, "a.txt"))
    os.utime(path, ns=(1, 1))
    assert source.stamp(Entry(0, "a.txt")) != before


def test_a_link_that_leads_nowhere_has_a_stamp_too(tmp_path):
    (tmp_path / "a.json").symlink_to(tmp_path / "gone")
    source = Source(tmp_path)
    (entry,) = source.matching("*.json")
    assert source.stamp(entry)
    with pytest.raises(OSError, match="No such file"):
        source.read(entry, MOST)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError) as caught:
        Source(tmp_path / "gone")
    assert one_line(caught.value).startswith(f"{tmp_path / 'gone'}: no such folder or file")
    with pytest.raises(UserError, match=r"holds no \*\.json; --source names the folder or zip with clips"):
        Source(tmp_path).find("*.json", "clips")


def read_zip(path: Path) -> dict[str, bytes]:
    """What can be read of an archive; every refusal is one line."""
    found = {}
    try:
        source = Source(path)
        entries = source.matching("*")
    except UserError as error:
        return {} if one_line(error).startswith(f"{path}: ") else {"": b"not named"}
    for entry in entries:
        assert source.stamp(entry)
        try:
            found[entry.path] = source.read(entry, MOST)
        except (DamagedClip, OSError) as error:
            one_line(error)
    return found


@pytest.mark.parametrize(
    "name", ["../../out.json", "/out.json", "a/../../out.json", "C:\\out.json", "\\\\host\\out.json"]
)
def test_names_that_lead_elsewhere_are_only_names(tmp_path, name):
    path = write_zip(tmp_path / "x.zip", {name: b"{}", "a.json": b"{}"})
    found = read_zip(path)
    assert set(found.values()) == {b"{}"}
    assert "a.json" in found
    assert list(tmp_path.iterdir()) == [path]


@given(st.data())
@settings(
    max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_archive_is_read_or_refused(tmp_path, data):
    compression = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
    files = {"a.json": b"12345" * 20, "ü/b.json": b"xyz"}
    path = write_zip(tmp_path / "x.zip", files, compression)
    path.write_bytes(data.draw(damages(path.read_bytes())))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_zip(path)
    assert set(found.values()) <= set(files.values())
    assert list(tmp_path.iterdir()) == [path]


def test_an_archive_that_is_cut_off_anywhere_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", FILES)
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(UserError, match="not a readable zip archive"):
            Source(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_cannot_be_bounded_and_are_refused(tmp_path, compression):
    path = write_zip(tmp_path / "x.zip", {"a.json": b"x" * 1000}, compression)
    source = Source(path)
    with pytest.raises(DamagedClip, match="packed otherwise than by deflate"):
        source.read(Entry(0, "a.json"), MOST)


def patched(path: Path, place: int, value: bytes) -> Path:
    """An archive of one member with `value` at the same `place` of both its headers.

    `place` counts in the header in the directory; the one before the member lacks the first two bytes of it.
    """
    data = bytearray(path.read_bytes())
    for start, shift in ((data.find(b"PK\x01\x02"), 0), (data.find(b"PK\x03\x04"), -2)):
        data[start + place + shift : start + place + shift + len(value)] = value
    path.write_bytes(data)
    return path


def test_an_encrypted_member_is_damaged(tmp_path):
    path = patched(write_zip(tmp_path / "x.zip", {"a.json": b"secret"}), 8, b"\x01")
    with pytest.raises(DamagedClip, match=r"cannot be unpacked \(.*encrypted"):
        Source(path).read(Entry(0, "a.json"), MOST)


def peak_memory(path: Path, most: int) -> int:
    """The most memory that refusing to read the one member takes."""
    tracemalloc.start()
    try:
        with pytest.raises(DamagedClip) as caught:
            Source(path).read(Entry(0, "a.json"), most)
        one_line(caught.value)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def zeros(path: Path, megabytes: int = 100) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.json", "w") as file:
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    return path


def test_a_member_that_unpacks_to_far_more_is_never_unpacked(tmp_path):
    path = zeros(tmp_path / "x.zip")
    assert path.stat().st_size < 1 << 17
    assert peak_memory(path, most=1 << 27) < 1 << 21


@pytest.mark.parametrize("size", [0, 1, 1 << 10, 1 << 20, (1 << 24) + 1])
def test_a_member_that_claims_less_than_it_unpacks_to(tmp_path, size):
    path = patched(zeros(tmp_path / "x.zip"), 24, struct.pack("<I", size))
    assert peak_memory(path, most=1 << 27) < max(1 << 22, 4 * size)


@pytest.mark.parametrize("size", [11, 1 << 20])
def test_a_member_that_claims_a_little_more_than_it_unpacks_to(tmp_path, size):
    path = patched(write_zip(tmp_path / "x.zip", {"a.json": b"0123456789"}), 24, struct.pack("<I", size))
    assert Source(path).read(Entry(0, "a.json"), MOST) == b"0123456789"


@pytest.mark.parametrize("size", [(1 << 20) + 1, 2**32 - 2])
def test_a_member_that_claims_far_more_than_it_unpacks_to(tmp_path, size):
    path = patched(write_zip(tmp_path / "x.zip", {"a.json": b"0123456789"}), 24, struct.pack("<I", size))
    assert peak_memory(path, most=1 << 27) < 1 << 21


def test_members_that_share_their_bytes_are_refused(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", os.urandom(2000))
        (info,) = archive.filelist
        archive.filelist += [info] * 9  # ten entries of the directory that point to one place
    with pytest.raises(UserError, match="its members overlap, so it was made to fill a disk"):
        Source(path)


def test_an_archive_in_an_archive_is_not_opened(tmp_path):
    inner = write_zip(tmp_path / "inner.zip", {"a.json": b"{}"})
    outer = write_zip(tmp_path / "outer.zip", {"inner.zip": inner.read_bytes()})
    with pytest.raises(UserError, match=r"holds no \*\.json"):
        Source(outer).find("*.json", "clips")


def test_a_changed_byte_is_told_by_the_checksum(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.json": b"0123456789"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"01234", b"01334"))
    with pytest.raises(DamagedClip, match=r"cannot be unpacked \(Bad CRC-32"):
        Source(path).read(Entry(0, "a.json"), MOST)
    assert zlib.crc32(b"0123456789") != zlib.crc32(b"0133456789")


def test_text_is_ascii():
    assert text_of(b"a\nb") == "a\nb"
    for data, line in ((b"\xff", 1), (b"a\n\xc3\xa9", 2), (b"a\r\nb\n\nc\x80\n", 4)):
        with pytest.raises(DamagedClip, match=rf"^line {line}: byte 0x.. is no ASCII text"):
            text_of(data)


def test_a_pipe_is_no_recording_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    source = Source(tmp_path)
    with pytest.raises(DamagedClip, match="no regular file"):
        source.read(source.matching("*")[0], MOST)


def test_a_store_below_the_source_is_passed_over(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    for name in ("meta.json", "clips.csv", "frames.npy", "tracks.npy"):
        (store / name).write_bytes(b"x")
    (tmp_path / "a.npy").write_bytes(b"x")
    assert [entry.path for entry in Source(tmp_path).matching("*.npy")] == ["a.npy"]


@pytest.mark.parametrize("written", ["folder\\a.json", "./folder/a.json"])
def test_names_as_other_archivers_write_them(tmp_path, written):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(written), b"[]")
    source = Source(tmp_path / "a.zip")
    (entry,) = source.matching("*.json")
    assert entry.path == "folder/a.json"
    assert source.read(entry, MOST) == b"[]"
    assert pickle.loads(pickle.dumps(source)).read(entry, MOST) == b"[]"


def test_linked_folders_are_read_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.json").write_text("[]")
    (tmp_path / "source").mkdir()
    for name in ("one", "two"):
        (tmp_path / "source" / name).symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "source")
    assert [entry.path for entry in Source(tmp_path / "source").matching("*.json")] == ["one/a.json"]
