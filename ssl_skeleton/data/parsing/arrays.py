"""Arrays from .npy and .npz files that anyone may have made: no pickle, no trust in their headers."""

import io
import math
import warnings
import zipfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.errors import DamagedClip

Array = NDArray[np.floating]
_MOST_RATIO = 200
_SMALL = 1 << 24  # arrays of zeros shrink to nothing, so a few megabytes may have any ratio
_MOST_UNPACKED = 1 << 32
_MOST_AXES = 32
_LONGEST_AXIS = 1 << 40


def read_npy(data: bytes) -> Array:
    """The array in the bytes of a .npy file, as floats; DamagedClip when it is none of numbers.

    Floats of any size, integers, either byte order, C or Fortran order.
    """
    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy and Python's parser warn of odd headers
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read_header(stream)
    except Exception as error:  # a damaged header makes numpy raise errors of any kind
        raise DamagedClip(f"not a .npy file ({_first_line(error)})") from None
    if dtype.kind not in "fiu":
        raise DamagedClip(f"holds {dtype}, not numbers; save an array of floats")
    # Also of an array of nothing, whose other axes numpy would have to count.
    if len(shape) > _MOST_AXES or not all(0 <= length < _LONGEST_AXIS for length in shape):
        raise DamagedClip(f"shape {str(shape)[:100]} is not possible")
    start, size = stream.tell(), math.prod(shape) * dtype.itemsize
    if len(data) - start != size:
        raise DamagedClip(f"{len(data) - start} bytes of numbers; shape {shape} of {dtype} needs {size}")
    array = np.frombuffer(data, dtype, offset=start)
    if dtype.kind != "f":
        array = array.astype(np.float64)
    try:
        return array.reshape(shape, order="F" if fortran else "C")
    except ValueError:  # nothing, but along axes that are too long together
        raise DamagedClip(f"shape {shape} is not possible") from None


def npz_names(data: bytes) -> list[str]:
    """The names of the arrays in the bytes of a .npz file."""
    return [info.filename.removesuffix(".npy") for info in _members(_opened(data), len(data))]


def read_npz(data: bytes) -> Iterator[tuple[str, Array | DamagedClip]]:
    """The arrays in the bytes of a .npz file by name, one after another; a damaged one is its DamagedClip."""
    archive = _opened(data)
    for info in _members(archive, len(data)):
        name = info.filename.removesuffix(".npy")
        try:
            with archive.open(info) as file:
                member = file.read(info.file_size + 1)  # a bound, for a header may lie about the size
            yield name, read_npy(member)
        except DamagedClip as error:
            yield name, DamagedClip(f"array {name[:80]!r}: {error}")
        except Exception as error:  # a damaged archive makes zipfile raise errors of any kind
            yield name, DamagedClip(f"array {name[:80]!r}: cannot be unpacked ({_first_line(error)})")


def _opened(data: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # as above
        raise DamagedClip(f"not a .npz file ({_first_line(error)})") from None


def _members(archive: zipfile.ZipFile, size: int) -> list[zipfile.ZipInfo]:
    """The members that are arrays; DamagedClip when they would unpack to far more than there can be."""
    members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    if not members:
        raise DamagedClip("holds no array")
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in members):
        raise DamagedClip("is packed in another way than numpy does")  # and so without a bound
    unpacked = sum(info.file_size for info in members)
    if unpacked > min(max(_SMALL, _MOST_RATIO * size), _MOST_UNPACKED):
        raise DamagedClip(f"would unpack to {unpacked} bytes from {size}")
    return members


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
