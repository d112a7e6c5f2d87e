"""Files of tensors and texts: safetensors, or what torch.save wrote. Nothing in them can run code."""

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ssl_skeleton.errors import UserError
from ssl_skeleton.files import write_atomically

KINDS = (".safetensors", ".pt")


def read_tensor_file(path: Path) -> dict[str, Any]:
    """All that a file holds, by its name: tensors on the CPU and, in `metadata`, texts.

    What torch.save wrote may hold plain values of any name too, even lists that contain themselves. A file
    that does not end in .safetensors is taken for one of those. Raises UserError when it is missing, damaged
    or something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except UserError:
        raise
    except Exception as error:  # a damaged file makes torch raise anything, IndexError as well as EOFError
        harmful = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if harmful:
            reason = f"it wants {harmful[1]}, and what could run code is not read"
        elif "Weights only" in reason:
            reason = "it does not hold tensors and plain values alone"
        raise UserError(f"{path}: damaged or no file of tensors ({reason})") from None


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="pt") as file:
        tree: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return tree | {"metadata": file.metadata() or {}}


def _read_torch(path: Path) -> dict[str, Any]:
    content = _repacked(path) if zipfile.is_zipfile(path) else io.BytesIO(path.read_bytes())
    tree = torch.load(content, map_location="cpu", weights_only=True)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: holds no tensors by name")
    return tree


def _repacked(path: Path) -> io.BytesIO:
    """The same archive, written anew: two readers, this one and torch's, can see two in a crafted file."""
    content = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(content, "w") as new:
        members = old.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > path.stat().st_size:
            raise UserError(f"{path}: is compressed, which torch.save does not do; it is not unpacked")
        for member in members:
            new.writestr(member.filename, old.read(member))
    content.seek(0)
    return content


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


def write_tensor_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts in place of an older file; the name's ending says which kind of file."""
    stored = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".safetensors":
        content = safetensors.torch.save(stored, dict(metadata))
    else:
        buffer = io.BytesIO()
        torch.save(stored | {"metadata": dict(metadata)}, buffer)
        content = buffer.getvalue()
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
