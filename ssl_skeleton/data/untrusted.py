"""Files of a store or an index, which may come from strangers: of a sane size before anything is read."""

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
_MEND = "prepare the store again"  # how errors end, unless they are told otherwise


def read_tree(path: Path, mend: str = _MEND) -> Any:
    """The plain values of meta.json; UserError when it holds none, or far too many."""
    size = plain_size(path, mend)
    if size > _MOST_META:
        raise UserError(f"{path}: {size} bytes are too many for what it has to tell; {mend}")
    return read_json(path)


def table_size(path: Path, clips: int, mend: str = _MEND) -> int:
    """The bytes of clips.csv, which is read as a whole; UserError when so many clips need far fewer."""
    size = plain_size(path, mend)
    if size > min(_MOST_TABLE, _MOST_LINE * (clips + 1)):
        raise UserError(f"{path}: {size} bytes are too many for {clips} clips; {mend}")
    return size


def load_array(path: Path, mend: str = _MEND) -> NDArray[Any]:
    """A memory-mapped .npy file, in C order and nothing behind it; UserError when it is damaged."""
    size = plain_size(path, mend)
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0) and int.from_bytes(file.read(4), "little") > _MOST_HEADER:
                raise ValueError("its header is too long")
        array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, mode="r")
        if not array.flags.c_contiguous or array.offset + array.nbytes != size:
            raise ValueError(f"{size} bytes, not {array.offset + array.nbytes} in C order")
    except Exception as error:  # a damaged header makes numpy raise errors of any kind
        raise UserError(f"{path}: damaged ({_first_line(error)}); {mend}") from None
    return array


def plain_size(path: Path, mend: str = _MEND) -> int:
    """The bytes of a plain file; UserError when it is none, or is not there.

    A link could lead anywhere, and a pipe or a device has no end.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a link" if stat.S_ISLNK(status.st_mode) else "no plain file"
        raise UserError(f"{path}: is {kind}; put the file itself there, or {mend}")
    return status.st_size


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
