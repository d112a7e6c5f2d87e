"""Writing files so that a half-written one never exists: temporary name, fsync, rename."""

import errno
import json
import os
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from ssl_skeleton.errors import UserError

if sys.platform != "win32":
    import fcntl

_LOCK = ".lock"
_HOLDER = re.compile(rb"(\d{1,10}) (\S{1,255})\n")  # process and host, in the lock
_LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")  # what mkstemp makes of our prefix and suffix
_MENDS = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some space, your quota is used up",
    errno.EFBIG: "larger files are not allowed here (ulimit -f)",
    errno.EROFS: "that disk can only be read",
    errno.EACCES: "check who may write there",
    errno.EPERM: "check who may write there",
    errno.ENOENT: "its folder is gone",
}


@contextmanager
def writing(path: Path, consequence: str = "") -> Iterator[None]:
    """Turn what the system says of a file that cannot be written into a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        parts = [f"{path}: cannot be written ({error.strerror or error})", _MENDS.get(error.errno or 0)]
        raise UserError("; ".join(part for part in (*parts, consequence) if part)) from None


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], placing: Callable[[Path], object] = lambda whole: None
) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    `placing` is called just before that with the temporary file, which is whole and on the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes it private
        placing(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def place_again(whole: Path, path: Path) -> None:
    """Put a file that is whole in place under another name too, in one step; free where links can be."""
    temporary = path.with_name(f".{path.name}.linked__.tmp")
    temporary.unlink(missing_ok=True)
    try:
        temporary.hardlink_to(whole)
    except OSError:  # not every file system has links
        write_atomically(path, lambda file: file.write(whole.read_bytes()))
    else:
        temporary.replace(path)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of writers that were killed; nobody else may be writing in the folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            path.unlink(missing_ok=True)


def contents(folder: Path) -> list[Path]:
    """What lies in a folder, but for its lock and what killed writers left; nothing when it is not there."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if path.name != _LOCK and not _LEFTOVER.fullmatch(path.name)]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder alone until the block ends or the process dies; UserError when another one has it.

    Its holder stands in `.lock`, which goes with it. What killed writers left in the folder is removed. Where
    there are no such locks, on Windows and on some file systems of networks, the folder is open to all.
    """
    path = folder / _LOCK
    handle = _hold(path)
    try:
        with suppress(OSError):  # on a full disk the lock holds all the same
            os.truncate(handle, 0)
            os.write(handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
        remove_leftovers(folder)
        yield
    finally:
        with suppress(OSError):
            if _is_at(handle, path):
                path.unlink()
        os.close(handle)


def _hold(path: Path) -> int:
    """A handle of the file at `path` that is locked for this process."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # never another's file through a link
    while True:
        with writing(path.parent):
            handle = os.open(path, flags, 0o666)
        try:
            _lock(handle, path.parent)
        except BaseException:
            os.close(handle)
            raise
        if _is_at(handle, path):
            return handle
        os.close(handle)  # its holder ended, and took it away, between the two


def _lock(handle: int, folder: Path) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        found = _HOLDER.match(os.read(handle, 300))
        who = f" ({int(found[1])} on {found[2].decode(errors='replace')})" if found else ""
        raise UserError(
            f"{folder}: another process{who} is writing it; wait for it to end, or end it"
        ) from None
    except OSError:  # a file system without locks
        return


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """Let a new name outlast a loss of power. Not every system can, and the file itself is safe."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically; what is no text, as in odd names of files, as a backslash escape."""
    write_atomically(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def write_json(path: Path, tree: Any) -> None:
    """Write `tree` as indented JSON, atomically; NaN and infinity are refused, JSON has none."""
    write_text(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file, with one clear error where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


@contextmanager
def new_folder(
    out: Path,
    *,
    overwrite: bool = False,
    is_mine: Callable[[Path], bool] = lambda folder: False,
    resumable: bool = False,
) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out` when the block ends well and vanishes otherwise.

    Raises UserError when `out` exists and `overwrite` is false. It never replaces a folder unless `is_mine`
    knows it as one of its own kind: a slip in --out must not cost anyone their recordings.

    A `resumable` block gets the folder `.<out>.partial`, which is left as it is when the block is broken off,
    and vanishes only with a UserError; two blocks cannot have it at once.
    """

    def check() -> None:
        if os.path.lexists(out) and not overwrite:
            raise UserError(f"{out}: already exists; choose another --out, or add --overwrite")
        if out.exists() and not (out.is_dir() and (is_mine(out) or not any(out.iterdir()))):
            raise UserError(f"{out}: holds other things than this command writes; choose another --out")

    check()
    temporary = _temporary_folder(out, resumable)
    try:
        with locked(temporary) if resumable else nullcontext():
            try:
                yield temporary
                check()  # again: the block may have taken hours
            except UserError:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            (temporary / _LOCK).unlink(missing_ok=True)
            _replace_folder(temporary, out)
    finally:
        if not resumable:
            shutil.rmtree(temporary, ignore_errors=True)


def _temporary_folder(out: Path, resumable: bool) -> Path:
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        if resumable:
            temporary = out.parent / f".{out.name}.partial"
            temporary.mkdir(exist_ok=True)
        else:
            temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        temporary.chmod(0o777 & ~_umask())
    return temporary


def _replace_folder(new: Path, out: Path) -> None:
    """Rename `new` to `out`; an older `out` steps aside first, since folders cannot be replaced."""
    if not out.exists():
        new.rename(out)
        return
    aside = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    older = aside / out.name
    try:
        out.rename(older)
        new.rename(out)
    except BaseException:
        if older.exists():
            older.rename(out)
        aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
