"""Arrays of numbers from MATLAB 5.0 files (MathWorks, "MAT-File Format", level 5).

`scipy.io.loadmat` is not made for damaged files: with a few bytes changed it can crash the process, and it
unpacks without a bound. So the little that is needed here is read by hand.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.errors import DamagedClip

_HEADER_BYTES = 128
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15  # kinds of elements
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = (6, 7)  # of matrices of real numbers: double and single
_COMPLEX_OR_LOGICAL = 0x0A00
_MOST_DIMENSIONS = 8


def read_matrix(data: bytes, name: str, most: int) -> NDArray[np.floating[Any]]:
    """The variable `name` of a file, an array of double or single numbers.

    Args:
        data: the file.
        name: the variable; all others are passed over.
        most: a bound on the bytes that compressed variables unpack to, all together.

    Raises:
        DamagedClip: it cannot be read right, or the variable is of another kind.
    """
    if data.startswith((b"MATLAB 7.3", b"\x89HDF")):
        raise DamagedClip(f"is a MATLAB 7.3 file (HDF5); save it with: save(file, '{name}', '-v7')")
    order = {b"IM": "<", b"MI": ">"}.get(data[_HEADER_BYTES - 2 : _HEADER_BYTES])
    if not data.startswith(b"MATLAB 5.0") or order is None:
        raise DamagedClip("not a MATLAB 5.0 file")
    bodies = [_Matrix.read(body, order) for body in _variables(data, order, most)]
    found = [matrix for matrix in bodies if matrix.name == name.encode()]
    if len(found) != 1:
        raise DamagedClip(f"'{name}' stands {len(found)} times in the file, not once")
    return found[0].array(name, order)


class _Matrix(NamedTuple):
    """A variable: its flags, dimensions and name, and the numbers, of which only the place is known."""

    flags: int
    shape: tuple[int, ...]
    name: bytes
    body: bytes
    start: int

    @classmethod
    def read(cls, body: bytes, order: str) -> "_Matrix":
        kind, flags, at = _element(body, 0, order)
        kinds = [kind]
        kind, dimensions, at = _element(body, at, order)
        kinds.append(kind)
        kind, name, at = _element(body, at, order)
        kinds.append(kind)
        if kinds != [_UINT32, _INT32, _INT8] or len(flags) != 8 or len(dimensions) % 4:
            raise DamagedClip("a variable does not begin with its flags, dimensions and name")
        shape = tuple(np.frombuffer(dimensions, f"{order}i4").tolist())
        return cls(struct.unpack(f"{order}I", flags[:4])[0], shape, name, body, at)

    def array(self, name: str, order: str) -> NDArray[np.floating[Any]]:
        """The numbers; whole ones are stored in fewer bytes than their class has."""
        if self.flags & 0xFF not in _CLASSES or self.flags & _COMPLEX_OR_LOGICAL:
            raise DamagedClip(f"'{name}' is not an array of real numbers")
        kind, numbers, _ = _element(self.body, self.start, order)
        if kind not in _NUMBERS:
            raise DamagedClip(f"'{name}' holds no numbers")
        dtype = np.dtype(f"{order}{_NUMBERS[kind]}")
        if len(self.shape) > _MOST_DIMENSIONS or min(self.shape, default=0) < 1:
            raise DamagedClip(f"'{name}' has shape {self.shape[:_MOST_DIMENSIONS]}")
        if math.prod(self.shape) * dtype.itemsize != len(numbers):
            raise DamagedClip(f"'{name}' has shape {self.shape}, but {len(numbers)} bytes of {dtype.name}")
        values = np.frombuffer(numbers, dtype).astype(np.float64)
        return values.reshape(self.shape, order="F")


def _variables(data: bytes, order: str, most: int) -> Iterator[bytes]:
    """The bodies of the variables of a file, unpacked."""
    at = _HEADER_BYTES
    while at < len(data):
        where = at
        kind, body, at = _element(data, at, order, padded=False)
        if kind == _COMPRESSED:
            unpacked = _inflate(body, most)
            most -= len(unpacked)
            kind, body, end = _element(unpacked, 0, order, padded=False)
            if end != len(unpacked):
                raise DamagedClip(f"byte {where}: more than one variable in a compressed one")
        if kind != _MATRIX:
            raise DamagedClip(f"byte {where}: an element of kind {kind} is no variable")
        yield body


def _element(data: bytes, at: int, order: str, *, padded: bool = True) -> tuple[int, bytes, int]:
    """An element's kind and contents, and where the next one begins; up to 4 bytes may stand in its tag."""
    if at + 8 > len(data):
        raise DamagedClip(f"byte {at}: the file or a variable of it is cut")
    kind, size = struct.unpack_from(f"{order}II", data, at)
    start, end = at + 8, at + 8 + size
    if kind >> 16:
        kind, size = kind & 0xFFFF, kind >> 16
        start, end = at + 4, at + 8
        if size > 4:
            raise DamagedClip(f"byte {at}: {size} bytes cannot stand in 4")
    elif end > len(data):
        raise DamagedClip(f"byte {at}: the file or a variable of it is cut")
    return kind, data[start : start + size], end + (-end % 8 if padded else 0)


def _inflate(data: bytes, most: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        unpacked = inflater.decompress(data, max(most, 1))
    except zlib.error as error:
        raise DamagedClip(f"cannot be unpacked ({error})") from None
    if not inflater.eof:
        raise DamagedClip(f"is cut, or unpacks to more than {most} bytes")
    return unpacked
