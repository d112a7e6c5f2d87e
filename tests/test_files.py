import errno
import json
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from builders import one_line

from ssl_skeleton.errors import UserError
from ssl_skeleton.files import (
    contents,
    new_folder,
    place_again,
    read_json,
    remove_leftovers,
    write_atomically,
    write_json,
    write_text,
    writing,
)


class Interrupted(BaseException):
    """Stands for Ctrl-C, which no `except Exception` sees."""


@pytest.mark.parametrize("reason", [OSError, ValueError, Interrupted])
def test_a_failing_writer_leaves_the_old_file(tmp_path, reason):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(file):
        file.write(b"half")
        file.flush()
        raise reason

    with pytest.raises(reason):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")

    def write(file):
        file.write(b"new")
        assert path.read_text() == "old"

    write_atomically(path, write)
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_lies_in_a_new_folder_and_others_may_read_it(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("x")
    path = tmp_path / "a" / "b" / "file"
    write_text(path, "Größe")
    assert path.read_bytes() == "Größe".encode()
    assert path.stat().st_mode == plain.stat().st_mode


def test_json_is_read_as_written_and_never_holds_nan(tmp_path):
    path = tmp_path / "tree.json"
    tree = {"a": [1, 2.5, None, True], "ü": {"b": "c"}}
    write_json(path, tree)
    assert read_json(path) == tree
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == tree


@pytest.mark.parametrize("data", [None, b"", b"{", b"\xff", b"[" * 100_000, b"{'a': 1}", b"9" * 10_000])
def test_a_damaged_json_file_is_the_users_to_mend(tmp_path, data):
    path = tmp_path / "tree.json"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert one_line(caught.value).startswith(f"{path}: ")


def test_a_folder_is_no_json_file(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


def test_a_new_folder_appears_when_the_block_ends_well(tmp_path):
    out = tmp_path / "a" / "out"
    with new_folder(out) as folder:
        (folder / "file").write_text("new")
        assert not out.exists()
    assert (out / "file").read_text() == "new"
    assert list(out.parent.iterdir()) == [out]


def fail_to_fill(out: Path, reason: type[BaseException]) -> None:
    with new_folder(out, overwrite=True, is_mine=lambda there: True) as folder:
        (folder / "file").write_text("half")
        raise reason


@pytest.mark.parametrize("reason", [ValueError, Interrupted])
@pytest.mark.parametrize("older", [True, False])
def test_nothing_is_left_of_a_failed_folder(tmp_path, reason, older):
    out = tmp_path / "out"
    if older:
        out.mkdir()
        (out / "file").write_text("old")
    with pytest.raises(reason):
        fail_to_fill(out, reason)
    assert list(tmp_path.rglob("*")) == ([out, out / "file"] if older else [])
    assert not older or (out / "file").read_text() == "old"


def test_an_existing_folder_is_refused_unless_it_may_be_replaced(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with pytest.raises(UserError, match="--overwrite"), new_folder(out):
        raise AssertionError("the block was entered")
    with new_folder(out, overwrite=True, is_mine=lambda there: (there / "old").exists()) as folder:
        (folder / "new").write_text("new")
        assert (out / "old").exists()
    assert list(tmp_path.rglob("*")) == [out, out / "new"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "out"
    with pytest.raises(UserError) as caught, new_folder(out):
        raise AssertionError("the block was entered")
    assert one_line(caught.value).startswith(f"{out}: cannot be written")


@pytest.mark.parametrize("kind", ["another kind", "any kind", "file"])
def test_a_folder_of_another_kind_is_never_replaced(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    asked = []

    def is_mine(folder: Path) -> bool:
        asked.append(folder)
        return kind == "file"

    options = {} if kind == "any kind" else {"is_mine": is_mine}  # by default nothing is known
    before = set(tmp_path.rglob("*"))
    with (
        pytest.raises(UserError, match="holds other things") as caught,
        new_folder(out, overwrite=True, **options),
    ):
        raise AssertionError("the block was entered")
    assert one_line(caught.value).startswith(f"{out}: ")
    assert asked == ([out] if kind == "another kind" else [])
    assert set(tmp_path.rglob("*")) == before
    assert (out if kind == "file" else out / "mine").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_appears_while_the_block_runs_is_not_replaced(tmp_path, overwrite):
    out = tmp_path / "out"

    def interfere() -> None:
        with new_folder(out, overwrite=overwrite, is_mine=lambda there: False):
            out.mkdir()
            (out / "mine").write_text("mine")

    with pytest.raises(UserError, match="holds other things" if overwrite else "already exists"):
        interfere()
    assert list(tmp_path.rglob("*")) == [out, out / "mine"]


@pytest.mark.parametrize("reason", [OSError, Interrupted])
@pytest.mark.parametrize("failing", [1, 2])
def test_when_a_rename_fails_the_older_folder_is_put_back(tmp_path, monkeypatch, failing, reason):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    rename, calls = Path.rename, []

    def failing_rename(self, target):
        calls.append(target)
        if len(calls) == failing:
            raise reason
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(reason), new_folder(out, overwrite=True, is_mine=lambda there: True):
        pass
    assert list(tmp_path.rglob("*")) == [out, out / "old"]


def test_an_older_folder_that_cannot_be_put_back_is_not_lost(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    rename, calls = Path.rename, []

    def failing_rename(self, target):
        calls.append(target)
        if len(calls) > 1:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing_rename)
    with (
        pytest.raises(OSError, match="Input/output"),
        new_folder(out, overwrite=True, is_mine=lambda there: True),
    ):
        pass
    (kept,) = tmp_path.rglob("old")
    assert kept.read_text() == "old"


def break_off(out: Path, reason: BaseException, text: str, **options) -> None:
    with new_folder(out, resumable=True, **options) as folder:
        assert folder == out.parent / f".{out.name}.partial"
        (folder / text).write_text(text)
        raise reason


@pytest.mark.parametrize(
    "reason", [OSError(28, "full"), ValueError(), SystemExit(1), KeyboardInterrupt(), Interrupted()]
)
def test_a_folder_that_can_be_taken_up_again_is_left_as_it_is(tmp_path, reason):
    out = tmp_path / "a" / "out"
    for text in ("one", "other"):
        with pytest.raises(type(reason)):
            break_off(out, reason, text)
    assert not out.exists()
    with new_folder(out, resumable=True) as folder:
        assert {path.name for path in folder.iterdir()} - {".lock"} == {"one", "other"}
        (folder / "last").write_text("last")
    assert list(out.parent.iterdir()) == [out]
    assert sorted(path.name for path in out.iterdir()) == ["last", "one", "other"]


def test_of_a_mistake_of_the_users_nothing_is_left_to_take_up(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="twice"):
        break_off(out, ValueError("twice"), "one")
    with pytest.raises(UserError, match="mistake"):
        break_off(out, UserError("mistake"), "other")
    assert list(tmp_path.iterdir()) == []


def test_two_blocks_cannot_have_one_folder(tmp_path):
    out = tmp_path / "out"
    with new_folder(out, resumable=True) as folder:
        (folder / "file").write_text("first")
        with pytest.raises(UserError) as caught:
            break_off(out, ValueError(), "second")
        holder = f"{os.getpid()} on {socket.gethostname()}"
        wanted = f"{folder}: another process ({holder}) is writing it; wait for it to end, or end it"
        assert one_line(caught.value) == wanted
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "file"]
        with new_folder(tmp_path / "elsewhere", resumable=True):
            pass
    assert [path.name for path in out.iterdir()] == ["file"]


def test_an_older_folder_stands_until_the_one_taken_up_is_whole(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    options = {"overwrite": True, "is_mine": lambda there: (there / "old").exists()}
    with pytest.raises(ValueError, match="once"):
        break_off(out, ValueError("once"), "new", **options)
    assert (out / "old").read_text() == "old"
    with pytest.raises(UserError, match="already exists"), new_folder(out, resumable=True):
        raise AssertionError("the block was entered")
    with new_folder(out, resumable=True, **options):
        assert (out / "old").exists()
    assert sorted(tmp_path.rglob("*")) == [out, out / "new"]


def test_what_is_no_text_is_written_as_an_escape(tmp_path):
    write_text(tmp_path / "file", "a\udcffü")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "a\\udcffü"


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path, monkeypatch):
    temporary = []

    def killed(whole: Path) -> None:
        temporary.append(whole)
        raise Interrupted

    with monkeypatch.context() as patch, suppress(Interrupted):
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # killed, so that nothing is cleaned
        write_atomically(tmp_path / "a.json", lambda file: file.write(b"x"), killed)
    assert list(tmp_path.iterdir()) == temporary
    mine = [tmp_path / name for name in (".a.json.backup", "a.abcdefgh.tmp", ".a.abc.tmp", ".lock", "a.json")]
    for path in mine:
        path.write_text("mine")
    link, folder = tmp_path / ".link.abcdefgh.tmp", tmp_path / ".folder.abcdefgh.tmp"
    link.symlink_to(mine[0])
    folder.mkdir()
    assert contents(tmp_path) == sorted(set(mine) - {tmp_path / ".lock"})
    remove_leftovers(tmp_path)
    assert set(tmp_path.iterdir()) == {*mine, link, folder}
    remove_leftovers(tmp_path / "nowhere")
    assert contents(tmp_path / "nowhere") == []


@pytest.mark.parametrize("links", [True, False])
def test_a_whole_file_is_placed_again(links, tmp_path, monkeypatch):
    def refused(path, target):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", refused)
    one, other = tmp_path / "one", tmp_path / "other"
    for text in ("first", "second"):
        write_text(one, text)
        (tmp_path / ".other.linked__.tmp").write_text("of one that was killed")
        place_again(one, other)
        assert (one.read_text(), other.read_text()) == (text, text)
        remove_leftovers(tmp_path)
        assert sorted(tmp_path.iterdir()) == [one, other]
    write_text(one, "third")
    assert other.read_text() == "second"
    assert one.stat().st_mode == other.stat().st_mode


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "free some space on that disk"),
        (errno.EDQUOT, "your quota is used up"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "that disk can only be read"),
        (errno.EACCES, "check who may write there"),
        (errno.ENOENT, "its folder is gone"),
        (errno.EIO, None),
    ],
)
def test_what_the_system_says_becomes_one_line(number, mend, tmp_path):
    with pytest.raises(UserError) as caught, writing(tmp_path / "a", "nothing is lost"):
        raise OSError(number, os.strerror(number))
    parts = one_line(caught.value).split("; ")
    assert parts[0] == f"{tmp_path}/a: cannot be written ({os.strerror(number)})"
    assert parts[-1] == "nothing is lost"
    assert len(parts) == (2 if mend is None else 3)
    assert mend is None or mend in parts[1]
