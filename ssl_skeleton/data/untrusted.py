"""Files of a store, which may come from strangers: they are of a sane size before anything is read."""

import stat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.errors import UserError
from ssl_skeleton.files import read_json

# What a file may make us read into memory at once, in bytes.
_MOST_META = 1 << 26
_MOST_TABLE, _MOST_LINE = 1 << 32, 1 << 12  # clips.csv, and a line of it on the average
_MOST_HEADER = 1 << 16  # of an array


def read_tree(path: Path) -> Any:
    """The plain values of meta.json; UserError when it holds none, or far too many."""
    size = _plain_size(path)
    if size > _MOST_META:
        raise UserError(f"{path}: {size} bytes are too many for the facts of a store; prepare it again")
    return read_json(path)


def table_size(path: Path, clips: int) -> int:
    """The bytes of clips.csv, which is read as a whole; UserError when so many clips need far fewer."""
    size = _plain_size(path)
    if size > min(_MOST_TABLE, _MOST_LINE * (clips + 1)):
        raise UserError(f"{path}: {size} bytes are too many for {clips} clips; prepare the store again")
    return size


def load_array(path: Path) -> NDArray[Any]:
    """A memory-mapped .npy file, in C order and nothing behind it; UserError when it is damaged."""
    size = _plain_size(path)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0) and int.from_bytes(file.read(4), "little") > _MOST_HEADER:
                raise ValueError("its header is too long")
        array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="r")
        if not array.flags.c_contiguous or array.offset + array.nbytes != size:
            raise ValueError(f"{size} bytes, not {array.offset + array.nbytes} in C order")
    except Exception as error:  # a damaged header makes numpy raise errors of any kind
        raise UserError(f"{path}: damaged ({_first_line(error)}); prepare the store again") from None
    return array


def _plain_size(path: Path) -> int:
    """The bytes of a plain file of a store; UserError when it is none, or is not there.

    A link could lead anywhere, and a pipe or a device has no end.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); prepare the store again") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "no plain file"
        raise UserError(f"{path}: is {kind}; put the file itself there, or prepare the store again")
    return status.st_size


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
