"""Weights that others have published, as released encoders."""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ssl_skeleton.data.store import sha256
from ssl_skeleton.encoders.released import Released, ReleasedConfig
from ssl_skeleton.encoders.shift_gcn import ShiftGCNConfig
from ssl_skeleton.encoders.tensor_file import check_tensors, read_tensor_file
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import load_layout

_WRAPPERS = ("state_dict", "model")  # under which others keep a state in a file
_LAYOUT, _COORDINATES, _FRAMES = "kinect_v2_25", ("x", "y", "z"), 300


def shift_gcn(path: Path) -> Released:
    """Shift-GCN from the weights of its release (Cheng et al., CVPR 2020), of the stream of joints.

    The release normalises clips as 2s-AGCN's does, and loops them to 300 frames. Raises UserError when a
    tensor is missing, unknown, of another shape or type, or cannot be right.
    """
    state = _state(path)
    bodies, classes = _sizes(state, path)
    about = ReleasedConfig(
        config=ShiftGCNConfig(joint_offsets=True, bias=True, absent_bodies="count", input_norm="clip"),
        layout=load_layout(_LAYOUT),
        coordinates=_COORDINATES,
        bodies=bodies,
        frames=_FRAMES,
        normalise="agcn",
        source=f"Shift-GCN (Cheng et al., CVPR 2020), {path.name}, SHA-256 {sha256(path)}",
    )
    encoder = about.build()
    _check_values("fc.weight", state["fc.weight"], (classes, encoder.dim), torch.float32, path)
    head = nn.Linear(encoder.dim, classes).eval()
    modules = nn.ModuleDict({"encoder": encoder, "head": head})
    wanted = {_published_name(name): (name, tensor) for name, tensor in modules.state_dict().items()}
    _check_names(state, wanted, path)
    converted = {}
    for published, (name, tensor) in wanted.items():
        _check_values(published, state[published], _published_shape(published, tensor), tensor.dtype, path)
        value = state[published]
        converted[name] = value.T if published.endswith("Linear_weight") else value.reshape(tensor.shape)
    modules.load_state_dict(converted)
    return Released(**dict(about), encoder=encoder, head=head)


PUBLISHED: dict[str, Callable[[Path], Released]] = {"shift_gcn": shift_gcn}


def _state(path: Path) -> dict[str, Tensor]:
    """The tensors of a published file, without what others put around them and before their names."""
    tree = read_tensor_file(path)
    tree.pop("metadata", None)
    for wrapper in _WRAPPERS:
        if isinstance(tree.get(wrapper), dict):
            tree = tree[wrapper]
            break
    if tree and all(isinstance(name, str) and name.startswith("module.") for name in tree):
        tree = {name.removeprefix("module."): value for name, value in tree.items()}
    return check_tensors(tree, path)


def _sizes(state: Mapping[str, Tensor], path: Path) -> tuple[int, int]:
    """How many bodies and classes a state of Shift-GCN is for; joints and coordinates must be known ones."""
    dims = {"l1.gcn1.Feature_Mask": 3, "data_bn.weight": 1, "fc.weight": 2}
    for name, count in dims.items():
        if name not in state:
            raise UserError(f"{path}: no weights of Shift-GCN: '{name}' is missing{_hint(name, state)}")
        if state[name].dim() != count:
            raise UserError(f"{path}: '{name}' is {_shape(state[name])}, but has {count} dimensions")
    _, joints, channels = state["l1.gcn1.Feature_Mask"].shape
    if joints != len(load_layout(_LAYOUT).joints):
        raise UserError(f"{path}: is for {joints} joints; known are the 25 of {_LAYOUT}")
    if channels != len(_COORDINATES):
        raise UserError(f"{path}: is for {channels} coordinates a joint; known are {', '.join(_COORDINATES)}")
    bodies, left = divmod(len(state["data_bn.weight"]), joints * channels)
    if left or not bodies:
        raise UserError(
            f"{path}: 'data_bn.weight' is {_shape(state['data_bn.weight'])}, which are no bodies of {joints} "
            f"joints with {channels} coordinates each"
        )
    return bodies, max(1, len(state["fc.weight"]))


_NAMES = (
    (r"^head\.", "fc."),
    (r"^encoder\.input_norm\.", "data_bn."),
    (r"\bspatial\.product\.", "gcn1.Linear_"),
    (r"\bspatial\.mask_vc$", "gcn1.Feature_Mask"),
    (r"\bspatial\.(shift_in|shift_out)\.index_i$", r"gcn1.\1"),
    (r"\bspatial\.shortcut\.pointwise\.", "gcn1.down.0."),
    (r"\bspatial\.shortcut\.norm\.", "gcn1.down.1."),
    (r"\bspatial\.norm\.", "gcn1.bn."),
    (r"\btemporal\.norm_in\.", "tcn1.bn."),
    (r"\btemporal\.norm_out\.", "tcn1.bn2."),
    (r"\btemporal\.product\.", "tcn1.temporal_linear."),
    (r"\btemporal\.(shift_in|shift_out)\.frames_c$", r"tcn1.\1.ypos"),
    (r"\btemporal\.(shift_in|shift_out)\.joints_c$", r"tcn1.\1.xpos"),
    (r"\bshortcut\.pointwise\.", "residual.conv."),
    (r"\bshortcut\.norm\.", "residual.bn."),
)


def _published_name(name: str) -> str:
    """What Shift-GCN's release calls a tensor."""
    name = re.sub(r"^encoder\.blocks\.(\d+)", lambda match: f"l{int(match[1]) + 1}", name)
    for ours, theirs in _NAMES:
        name = re.sub(ours, theirs, name)
    return name


def _published_shape(published: str, ours: Tensor) -> tuple[int, ...]:
    """The shape that a tensor has there: products are convolutions, or count their inputs first."""
    shape = tuple(ours.shape)
    if published.endswith("Linear_weight"):
        return shape[::-1]
    if published.endswith("Linear_bias"):
        return (1, 1, *shape)
    if published.endswith("Feature_Mask"):
        return (1, *shape)
    return (*shape, 1, 1) if published.endswith(("down.0.weight", "linear.weight", "conv.weight")) else shape


def _check_names(state: Mapping[str, Tensor], wanted: Collection[str], path: Path) -> None:
    """Refuse a state in which a name is missing or unknown."""
    unknown, missing = ([*one] for one in (state.keys() - set(wanted), set(wanted) - state.keys()))
    if missing:
        name = min(missing, key=list(wanted).index)
        raise UserError(f"{path}: '{name}' is missing{_hint(name, unknown)}")
    if unknown:
        name = min(unknown)
        raise UserError(f"{path}: '{name}' is no tensor of Shift-GCN{_hint(name, wanted)}")


def _check_values(name: str, found: Tensor, shape: tuple[int, ...], dtype: torch.dtype, path: Path) -> None:
    """Refuse a tensor of another shape or type, or with values that cannot be right."""
    where = f"{path}: '{name}'"
    if tuple(found.shape) != shape:
        raise UserError(f"{where} is {_shape(found)}, but should be {shape}")
    if found.dtype != dtype:
        raise UserError(f"{where} is {_type(found.dtype)}, but should be {_type(dtype)}")
    if not found.isfinite().all():
        raise UserError(f"{where} holds values that are not finite")
    if name.endswith("running_var") and (found < 0).any():
        raise UserError(f"{where} holds a variance below 0")
    if name.endswith(("gcn1.shift_in", "gcn1.shift_out")) and not ((found >= 0) & (found < len(found))).all():
        wrong = int(found[(found < 0) | (found >= len(found))][0])
        raise UserError(f"{where} names place {wrong}; there are 0 to {len(found) - 1}")


def _hint(name: str, names: Collection[str]) -> str:
    """Ask for the nearest of the names, where one is near."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.8)
    return f"; did you mean '{close[0]}'?" if close else ""


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
