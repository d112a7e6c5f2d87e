"""A released encoder: one file with the weights and all that one must know to use them.

It holds the encoder's state under `encoder.`, that of its classifier, where there is one, as `head.weight`
and `head.bias`, and as metadata the `format` and the keys of `ReleasedConfig`, each of them a text of JSON.
In a .pt file those lie under `metadata`.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from ssl_skeleton.config import Config
from ssl_skeleton.data.views.normalise import Normalise, NormaliseConfig
from ssl_skeleton.data.views.streams import Stream
from ssl_skeleton.encoders import AnyEncoder
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.gcn import GraphEncoder
from ssl_skeleton.encoders.pooling import Pooling, pool, pooled_dim
from ssl_skeleton.encoders.tensor_file import (
    KINDS,
    at_most,
    check_tensors,
    load_tensors,
    read_tensor_file,
    write_tensor_file,
)
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout

FORMAT = 1
_METADATA = "metadata"


class ReleasedConfig(Config):
    """What a released encoder is, and what it wants to see.

    config       of the encoder
    layout       its joints
    coordinates  the names of the numbers that each joint has
    bodies       how many of them it sees
    frames       to how many a clip was resampled for it, or looped; null when clips kept their own
    normalise    what was taken out of the coordinates, as `data.normalise` of a recipe
    streams      what it sees of a clip
    pooling      how the classifier pools the encoder's features
    source       where it comes from
    """

    config: AnyEncoder
    layout: Layout
    coordinates: tuple[str, ...] = Field(min_length=1)
    bodies: int = Field(ge=1)
    frames: int | None = Field(default=None, ge=2, le=4096)
    normalise: Normalise = NormaliseConfig()
    streams: tuple[Stream, ...] = Field(default=("joint",), min_length=1)
    pooling: Pooling = "mean"
    source: str = ""

    def build(self) -> Encoder:
        """The encoder with random weights, in eval mode."""
        channels = len(self.coordinates) * len(self.streams)
        return self.config.build(self.layout, channels, self.bodies).eval()


class Released(ReleasedConfig):
    """A released encoder, in eval mode, and the classifier that was trained with it, if any."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    encoder: Encoder = Field(exclude=True, repr=False)
    head: nn.Linear | None = Field(default=None, exclude=True, repr=False)

    def to(self, target: torch.device | torch.dtype | str) -> Self:
        """Move both, in place, to a device or to another type of floating point; gives itself."""
        for module in (self.encoder, self.head):
            if module is not None:
                module.to(target)
        return self

    def scores(self, x_nctvm: Tensor, lengths: Tensor) -> Tensor:
        """The classifier's scores (N, classes) of clips as the encoder wants to see them.

        The classifier sees a clip's valid steps pooled, as their mean; a step that stands for several frames
        counts once. Raises UserError when there is no classifier, ValueError for clips of another shape.
        """
        if self.head is None:
            raise UserError("this encoder was released without a classifier")
        channels = len(self.coordinates) * len(self.streams)
        if (x_nctvm.shape[1], *x_nctvm.shape[3:]) != (channels, len(self.layout.joints), self.bodies):
            wanted = f"(N, {channels}, T, {len(self.layout.joints)}, {self.bodies})"
            raise ValueError(f"clips {tuple(x_nctvm.shape)} are not {wanted}, as this encoder sees them")
        span = math.prod(self.encoder.strides) if isinstance(self.encoder, GraphEncoder) else 1
        features_nsd = self.encoder(x_nctvm, lengths)[:, ::span]
        scores_nc: Tensor = self.head(pool(features_nsd, (lengths + span - 1) // span, self.pooling))
        return scores_nc


def save_released(path: Path, released: Released, *, overwrite: bool = False) -> None:
    """Write a file that `load_released` reads; `overwrite` replaces one that does, and no other file.

    Raises UserError when it cannot be written.
    """
    check_place(path, overwrite=overwrite)
    parts = {"encoder": released.encoder, "head": released.head}
    tensors = {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        for name, tensor in (module.state_dict() if module is not None else {}).items()
    }
    metadata = {"format": FORMAT} | released.to_tree()
    write_tensor_file(path, tensors, {key: json.dumps(value) for key, value in metadata.items()})


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise UserError when no released encoder may be written to `path`."""
    if path.suffix not in KINDS:
        raise UserError(f"{path}: the name of a released encoder ends in {' or '.join(KINDS)}")
    if os.path.lexists(path) and not overwrite:
        raise UserError(f"{path}: already exists; choose another --out, or add --overwrite")
    if os.path.lexists(path) and not _is_released(path):
        raise UserError(f"{path}: holds other things than this command writes; choose another --out")


def _is_released(path: Path) -> bool:
    try:
        _read(path)
    except UserError:
        return False
    return True


def load_released(path: Path | str) -> Released:
    """Read a released encoder; UserError when the file is missing, damaged or something else."""
    path = Path(path)
    about, tensors = _read(path)
    with at_most(path.stat().st_size, f"{path}: {_METADATA}: config"):
        encoder = about.build()
        dim = pooled_dim(encoder.dim, about.pooling)
        head = _head(tensors["head.weight"], dim, path) if "head.weight" in tensors else None
    return _filled(Released(**dict(about), encoder=encoder, head=head), tensors, path)


def _head(weight_dc: Tensor, dim: int, path: Path) -> nn.Linear:
    """A classifier with weights of that shape."""
    shape = tuple(weight_dc.shape)
    if shape[1:] != (dim,):
        raise UserError(f"{path}: head.weight is {shape}, but should be (classes, {dim})")
    return nn.Linear(dim, shape[0]).eval()


def _read(path: Path) -> tuple[ReleasedConfig, dict[str, Tensor]]:
    """What a file says of its encoder, and its tensors."""
    tree = read_tensor_file(path)
    texts = tree.pop(_METADATA, None)
    if not isinstance(texts, dict) or texts.pop("format", None) != str(FORMAT):
        raise UserError(f"{path}: not a released encoder in format {FORMAT}")
    where = f"{path}: {_METADATA}"
    try:
        # JSON is at most as large as its text; plain values of a .pt file, in which one list may stand in
        # many places, could be larger than any memory.
        about = ReleasedConfig.from_tree({key: json.loads(text) for key, text in texts.items()}, where)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{where}: damaged ({error})") from None
    return about, check_tensors(tree, path)


def _filled(released: Released, tensors: Mapping[str, Tensor], path: Path) -> Released:
    """The same with the weights of `tensors`, every one of which must be there, of its shape and finite."""
    modules = nn.ModuleDict({"encoder": released.encoder})
    if released.head is not None:
        modules["head"] = released.head
    load_tensors(modules, tensors, path)
    return released
