"""Files of tensors and texts: safetensors, or what torch.save wrote. Nothing in them can run code."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ssl_skeleton.encoders.torch_file import read_torch
from ssl_skeleton.errors import UserError
from ssl_skeleton.files import write_atomically, writing

KINDS = (".safetensors", ".pt")
_FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}  # which become one another


def read_tensor_file(path: Path) -> dict[str, Any]:
    """All that a file holds, by its name: tensors on the CPU and, in `metadata`, texts.

    What torch.save wrote may hold plain values of any name too, even lists that contain themselves. A file
    that does not end in .safetensors is taken for one of those. Raises UserError when it is missing, damaged
    or something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
    try:
        tree = _read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    except MemoryError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged file can raise anything, IndexError as well as EOFError
        told = type(error) in (ValueError, BadZipFile)  # others speak of Python, not of the file
        reason = f" ({error})" if told else ""
        raise UserError(f"{path}: damaged or no file of tensors{reason}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no tensors by name")
    return tree


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        tree: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return tree | {"metadata": file.metadata() or {}}


def check_tensors(tree: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of `tree`, read from `path`, which holds nothing else.

    Raises UserError where there is something else, or a tensor that claims more values than the file has
    bytes, as views of one value can: nobody would have the memory for them.
    """
    bytes_left = path.stat().st_size
    for name, value in tree.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise UserError(f"{path}: '{name}' is no plain tensor")
        bytes_left -= value.numel() * value.element_size()
        if bytes_left < 0:
            raise UserError(f"{path}: '{name}' of shape {tuple(value.shape)} claims more than the file holds")
    return dict(tree)


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor on the CPU whose values are numbers, one beside the other."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    return value.device.type == "cpu" and not value.is_quantized


@contextmanager
def at_most(values: int, what: str) -> Iterator[None]:
    """Let no modules be built that have more parameters than a file can hold, `values`; `what` names them.

    Raises UserError where one does, before its memory is used, or where its sizes are none.
    """
    left = values

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= 0 if parameter is None else parameter.numel()
        if left < 0:
            raise UserError(f"{what}: has more weights than the file holds")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:  # sizes that no tensor can have
        raise UserError(f"{what}: cannot be built ({error})") from None
    finally:
        handle.remove()


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, hint: str = "") -> None:
    """Fill a module with tensors read from `path`: every one of its own, of its shape and type, and finite.

    Raises UserError otherwise; where it is names or shapes that differ, the line ends with `hint`.
    """
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | tensors.keys()):
        found = tuple(tensors[name].shape) if name in tensors else None
        needed = tuple(wanted[name].shape) if name in wanted else None
        if found != needed:
            raise UserError(f"{path}: {name} is {_told(found)}, but should be {_told(needed)}{hint}")
        kind, needed_kind = tensors[name].dtype, wanted[name].dtype
        if kind != needed_kind and not {kind, needed_kind} <= _FLOATS:
            raise UserError(f"{path}: {name} is {kind}, but should be {needed_kind}")
        if not tensors[name].to(needed_kind).isfinite().all():
            raise UserError(f"{path}: {name} is not finite")
    try:
        module.load_state_dict(dict(tensors))
    except ValueError as error:  # an index list that names places which are not there
        raise UserError(f"{path}: {error}") from None


def _told(shape: tuple[int, ...] | None) -> Any:
    return "absent" if shape is None else shape


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts in place of an older file; the name's ending says which kind of file."""
    stored = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        content = safetensors.torch.save(stored, dict(metadata))
    else:
        buffer = io.BytesIO()
        torch.save(stored | {"metadata": dict(metadata)}, buffer)
        content = buffer.getvalue()
    with writing(path):
        write_atomically(path, lambda file: file.write(content))
