"""Writing files so that a half-written one never exists: temporary name, fsync, rename."""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from ssl_skeleton.errors import UserError

if sys.platform != "win32":
    import fcntl

_LOCK = ".lock"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes it private
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
        with _locked(temporary) if resumable else nullcontext():
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
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if resumable:
            temporary = out.parent / f".{out.name}.partial"
            temporary.mkdir(exist_ok=True)
        else:
            temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        temporary.chmod(0o777 & ~_umask())
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return temporary


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder alone; UserError when another process has it. Windows has no such lock."""
    with (folder / _LOCK).open("wb") as file:
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{folder}: another process is writing it; wait for it to end") from None
        yield


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
