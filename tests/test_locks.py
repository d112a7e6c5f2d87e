import errno
import os
import re
import socket
import sys
from pathlib import Path

import pytest
from builders import one_line

from ssl_skeleton.errors import UserError
from ssl_skeleton.files import contents, locked


class Interrupted(BaseException):
    """Stands for Ctrl-C, which no `except Exception` sees."""


def holds(folder: Path) -> bool:
    """Whether somebody else holds the folder."""
    try:
        with locked(folder):
            return False
    except UserError:
        return True


def test_a_folder_is_held_until_the_block_ends_and_nothing_stays(tmp_path):
    for _ in range(2):
        with locked(tmp_path):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"
            assert contents(tmp_path) == []
            assert holds(tmp_path)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(Interrupted), locked(tmp_path):
        raise Interrupted
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", [b"", b"1 elsewhere\n", b"\x1b[2J" * 100, bytes(10**6)])
def test_the_file_of_a_holder_that_is_gone_holds_nothing(left, tmp_path):
    (tmp_path / ".lock").write_bytes(left)
    with locked(tmp_path):
        assert holds(tmp_path)
    assert not holds(tmp_path)


@pytest.mark.parametrize("text", [b"", b"\x1b[2J\n", b"12345678901 x\n", b"1 a b\n", b"\xff"])
def test_a_holder_that_does_not_say_who_it_is(text, tmp_path):
    with locked(tmp_path):
        (tmp_path / ".lock").write_bytes(text)
        with pytest.raises(UserError) as caught, locked(tmp_path):
            raise AssertionError("the block was entered")
    assert one_line(caught.value) == (
        f"{tmp_path}: another process is writing it; wait for it to end, or end it"
    )


def test_a_lock_is_never_written_through_a_link(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "mine"
    folder.mkdir()
    other.write_text("mine")
    (folder / ".lock").symlink_to(other)
    with pytest.raises(UserError, match="cannot be written"), locked(folder):
        raise AssertionError("the block was entered")
    assert other.read_text() == "mine"
    (folder / ".lock").unlink()
    (folder / ".lock").mkdir()
    with pytest.raises(UserError, match="cannot be written"), locked(folder):
        raise AssertionError("the block was entered")


def test_a_folder_that_goes_away_while_it_is_held(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with locked(folder):
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        with locked(folder):  # another folder by now
            pass
    assert list(folder.iterdir()) == []
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/gone: cannot be written")):
        locked(tmp_path / "gone").__enter__()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
@pytest.mark.parametrize(
    ("number", "is_held"),
    [(errno.EAGAIN, True), (errno.EACCES, True), (errno.ENOLCK, False), (errno.ENOTSUP, False)],
)
def test_file_systems_whose_locks_are_other_or_none(number, is_held, tmp_path, monkeypatch):
    def flock(handle, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    assert holds(tmp_path) is is_held


def test_a_lock_says_nothing_on_a_full_disk_but_holds(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with locked(tmp_path):
            assert holds(tmp_path)


def test_a_lock_removes_them(tmp_path):
    (tmp_path / ".a.json.abcdefgh.tmp").write_text("x")
    with locked(tmp_path):
        assert contents(tmp_path) == list(tmp_path.glob("*.tmp")) == []
