"""What torch.save wrote, read as plain values: nothing that such a file names is called.

torch.load, even with weights_only, calls many of the functions that a file asks for, with any arguments: some
take memory without end, as `torch.Tensor(10**10)` and `bytearray(10**10)` do, and a tuple that holds another
one twice, fifty times over, takes years to be hashed. Here a pickle is a list of operations on a stack
(`pickletools` documents them), of which the few are followed that build what torch.save makes of tensors,
numbers, texts, lists and dictionaries. Every tensor is a view of bytes that the file has.
"""

import io
import math
import pickletools
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

_MOST_OPERATIONS = 1 << 20  # a tensor takes about 25
_MOST_DIMENSIONS = 16
_LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # the first two values of a file of torch before 1.6
_DTYPES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
    "torch ComplexFloatStorage": torch.complex64,
    "torch ComplexDoubleStorage": torch.complex128,
}
_DICT = "collections OrderedDict"
_TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"


def read_torch(path: Path) -> Any:
    """What the file holds, its tensors on the CPU; errors of any kind when it is damaged or something else.

    Parameters come as tensors, and ordered dictionaries as plain ones. A list may contain itself.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            return _read_archive(file)
    return _read_legacy(io.BytesIO(path.read_bytes()))


@dataclass(frozen=True)
class _Storage:
    """The values of some tensors, one after another."""

    values_n: Tensor


_FindStorage = Callable[[str, torch.dtype, int], _Storage]


def _read_archive(file: IO[bytes]) -> Any:
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > size:
            raise ValueError("it is compressed, which torch.save does not do; it is not unpacked")
        top = next((name for name in archive.namelist() if name.endswith("/data.pkl")), "/data.pkl")[:-8]
        names = set(archive.namelist())
        if f"{top}byteorder" in names and archive.read(f"{top}byteorder").decode() != sys.byteorder:
            raise ValueError("it was written on a machine with another order of bytes")
        found: dict[str, _Storage] = {}

        def storage(key: str, dtype: torch.dtype, count: int) -> _Storage:
            if key not in found:
                found[key] = _Storage(_tensor(archive.read(f"{top}data/{key}"), dtype))
            return found[key]

        return _Machine(storage).run(io.BytesIO(archive.read(f"{top}data.pkl")))


def _read_legacy(file: io.BytesIO) -> Any:
    """A file of torch before 1.6: five pickles, of which the fourth is the tree; then its storages."""
    left = len(file.getbuffer())
    found: dict[str, tuple[bytearray, _Storage]] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> _Storage:
        nonlocal left
        if key not in found:
            left -= count * dtype.itemsize
            if left < 0:
                raise ValueError("a tensor claims more than the file holds")
            content = bytearray(count * dtype.itemsize)
            found[key] = (content, _Storage(_tensor(content, dtype)))
        return found[key][1]

    if (_Machine(storage).run(file), _Machine(storage).run(file)) != _LEGACY:
        raise ValueError("torch.save begins in another way")
    _Machine(storage).run(file)  # the machine that it was written on
    tree = _Machine(storage).run(file)
    for key in _of(list, _Machine(storage).run(file)):
        content, values = found[_of(str, key)]
        count = int.from_bytes(file.read(8), "little")
        if count != len(values.values_n) or file.readinto(content) != len(content):
            raise ValueError("the values of a tensor are not all there")
    return tree


def _tensor(content: bytes | bytearray, dtype: torch.dtype) -> Tensor:
    """The values (N,) of these bytes, in memory of their own unless they can be written to."""
    if len(content) % dtype.itemsize:
        raise ValueError(f"{len(content)} bytes are no values of {dtype}")
    if not content:
        return torch.zeros(0, dtype=dtype)
    return torch.frombuffer(content if isinstance(content, bytearray) else bytearray(content), dtype=dtype)


class _Machine:
    """Follows the operations of a pickle; anything but a plain value is refused."""

    def __init__(self, storage: _FindStorage) -> None:
        self._storage = storage
        self._stack: list[Any] = []
        self._marks: list[int] = []  # how high the stack was
        self._memo: dict[int, Any] = {}

    def run(self, file: io.BytesIO) -> Any:
        """The value that the pickle leaves on the stack."""
        for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if count > _MOST_OPERATIONS:
                raise ValueError("it has more parts than any checkpoint")
            if operation.name not in _OPERATIONS:
                raise ValueError(f"{operation.name} makes no plain value")
            _OPERATIONS[operation.name](self, argument)
        return self._stack.pop()

    def pop(self, count: int | None = None) -> list[Any]:
        """The last values, so many or those since the last mark, taken off the stack."""
        start = self._marks.pop() if count is None else len(self._stack) - count
        if not 0 <= start <= len(self._stack):
            raise ValueError("a part is missing")
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self._stack.append(value)

    def mark(self, _: None) -> None:
        """Let a list of values begin."""
        self._marks.append(len(self._stack))

    def keep(self, place: int) -> None:
        """Remember the last value."""
        self._memo[place] = self._stack[-1]

    def recall(self, place: int) -> None:
        """Put a remembered value on the stack."""
        self.push(self._memo[place])

    def set_items(self, items: list[Any]) -> None:
        """Fill a dictionary with keys and values by turns."""
        table, keys = _of(dict, self._stack[-1]), items[::2]
        if any(type(key) not in (str, int) for key in keys):  # to hash another one may take years
            raise ValueError("a key is neither text nor number")
        table.update(zip(keys, items[1::2], strict=True))

    def append(self, items: list[Any]) -> None:
        """Fill a list."""
        _of(list, self._stack[-1]).extend(items)

    def call(self, _: None) -> None:
        """Make what torch.save means by a call."""
        function, arguments = self.pop(2)
        self.push(_made(function, _of(tuple, arguments)))

    def forget(self, _: None) -> None:
        """Leave out what a module's state says of itself beside its tensors."""
        self.pop(1)
        _of(dict, self._stack[-1])

    def find(self, _: None) -> None:
        """The storage that ("storage", kind, key, device, count) names; before 1.6, None follows."""
        saved = _of(tuple, *self.pop(1))
        what, kind, key, _, count = saved[:5]
        if what != "storage" or saved[5:] not in ((), (None,)) or type(count) is not int:
            raise ValueError("it has a part that is no tensor")
        dtype = _DTYPES[_of(str, kind)]
        storage = self._storage(_of(str, key), dtype, count)
        if (len(storage.values_n), storage.values_n.dtype) != (count, dtype):
            raise ValueError(f"tensor data {key} of {len(storage.values_n)} values claims {count}")
        self.push(storage)


_CONSTANTS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING"),
)
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "STOP"), lambda machine, _: None),
    **dict.fromkeys(_CONSTANTS, _Machine.push),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "MARK": _Machine.mark,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop(3))),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop()),
    "APPEND": lambda machine, _: machine.append(machine.pop(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.keep),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": lambda machine, name: machine.push(_known(name)),
    "REDUCE": _Machine.call,
    "BUILD": _Machine.forget,
    "BINPERSID": _Machine.find,
}


def _known(name: str) -> str:
    if name not in {*_DTYPES, _DICT, _TENSOR, _PARAMETER}:
        raise ValueError(f"it wants {name.replace(' ', '.')}, and what could run code is not read")
    return name


def _of(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} stands where a {kind.__name__} should")
    return value


def _made(name: Any, arguments: tuple[Any, ...]) -> Any:
    """What torch.save means by a call."""
    if name == _DICT and not arguments:
        return {}
    if name == _PARAMETER:
        return _of(Tensor, arguments[0])
    if name == _TENSOR:
        return _view(*arguments[:4])
    raise ValueError("it has a call that is no tensor's")


def _view(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """The tensor of that shape in a storage; it may not lie outside, nor be larger than it."""
    values_n: Tensor = _of(_Storage, storage).values_n
    numbers = (offset, *_of(tuple, shape), *_of(tuple, strides))
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("the shape of a tensor is no list of counts")
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor has {len(shape)} dimensions and {len(strides)} strides")
    count = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if count > len(values_n) or (count and last >= len(values_n)):
        raise ValueError(f"a tensor of shape {shape} claims more than the file holds")
    return values_n.as_strided(shape, strides, offset) if count else values_n.new_empty(shape)
