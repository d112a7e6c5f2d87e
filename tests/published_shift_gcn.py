"""Shift-GCN as its release has it: the names and shapes of its weights, and what it computes with them."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

UNITS = [
    (3, 64, 1),
    *[(64, 64, 1)] * 3,
    (64, 128, 2),
    *[(128, 128, 1)] * 2,
    (128, 256, 2),
    *[(256, 256, 1)] * 2,
]
JOINTS = 25


def named_shapes(classes: int = 60, bodies: int = 2) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the release; counts and index lists are int64, all others float32."""
    yield from _norm("data_bn", bodies * JOINTS * 3)
    for number, (inputs, outputs, stride) in enumerate(UNITS, 1):
        unit = f"l{number}"
        yield f"{unit}.gcn1.Linear_weight", (inputs, outputs)
        yield f"{unit}.gcn1.Linear_bias", (1, 1, outputs)
        yield f"{unit}.gcn1.Feature_Mask", (1, JOINTS, inputs)
        yield f"{unit}.gcn1.shift_in", (JOINTS * inputs,)
        yield f"{unit}.gcn1.shift_out", (JOINTS * outputs,)
        if inputs != outputs:
            yield from _convolution(f"{unit}.gcn1.down.0", inputs, outputs)
            yield from _norm(f"{unit}.gcn1.down.1", outputs)
        yield from _norm(f"{unit}.gcn1.bn", JOINTS * outputs)
        yield from _norm(f"{unit}.tcn1.bn", outputs)
        yield from _norm(f"{unit}.tcn1.bn2", outputs)
        for shift in ("shift_in", "shift_out"):
            yield f"{unit}.tcn1.{shift}.xpos", (outputs,)
            yield f"{unit}.tcn1.{shift}.ypos", (outputs,)
        yield from _convolution(f"{unit}.tcn1.temporal_linear", outputs, outputs)
        if stride != 1:
            yield from _convolution(f"{unit}.residual.conv", inputs, outputs)
            yield from _norm(f"{unit}.residual.bn", outputs)
    yield "fc.weight", (classes, 256)
    yield "fc.bias", (classes,)


def _convolution(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs, 1, 1)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{part}", (channels,)
    yield f"{name}.num_batches_tracked", ()


def random_state(
    seed: int = 0, *, far: bool = False, classes: int = 60, bodies: int = 2
) -> dict[str, Tensor]:
    """Weights and index lists at random; offsets stay within a few places, or some of them lead `far` out."""
    source = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(shape, generator=source) for name, shape in named_shapes(classes, bodies)}
    for name, value in state.items():
        part = name.rsplit(".", maxsplit=1)[-1]
        if part == "num_batches_tracked":
            state[name] = torch.tensor(1000)
        elif part in ("shift_in", "shift_out"):
            state[name] = torch.randperm(len(value), generator=source)
            if name.startswith(("l2.", "l7.")):  # no permutation
                state[name] = torch.randint(len(value), value.shape, generator=source)
        elif part in ("xpos", "ypos"):
            value.mul_(2)
            value[::5] = value[::5].round()
            value[::7] *= 200 if far else 1
        elif value.ndim > 1 and part in ("weight", "Linear_weight"):
            value.div_(value.shape[0 if part == "Linear_weight" else 1] ** 0.5)
        elif part == "running_var":
            value.abs_().mul_(0.4).add_(0.2)  # small enough for clips to be told apart at the end
        else:
            value.mul_(0.3).add_(0.7 if part == "weight" else 0.0)
    return state


def features(state: dict[str, Tensor], x_nctvm: Tensor) -> Tensor:
    """What the last unit gives, the mean over bodies and joints, (N, T', 256)."""
    clips, channels, frames, joints, bodies = x_nctvm.shape
    x = x_nctvm.permute(0, 4, 3, 1, 2).reshape(clips, bodies * joints * channels, frames)
    x = _normed(state, "data_bn", x).view(clips, bodies, joints, channels, frames)
    x = x.permute(0, 1, 3, 4, 2).reshape(clips * bodies, channels, frames, joints)
    for number, (inputs, outputs, stride) in enumerate(UNITS, 1):
        y = _temporal(state, f"l{number}.tcn1", _spatial(state, f"l{number}.gcn1", x), stride)
        if number > 1 and inputs == outputs:
            y = y + x
        elif number > 1:
            y = y + _convolved(state, f"l{number}.residual", ("conv", "bn"), x, stride)
        x = functional.relu(y)
    return x.mean(dim=3).unflatten(0, (clips, bodies)).mean(dim=1).transpose(1, 2)


def scores(state: dict[str, Tensor], features_ntd: Tensor) -> Tensor:
    """The scores (N, classes) that these features give."""
    return features_ntd.mean(dim=1) @ state["fc.weight"].T + state["fc.bias"]


def _spatial(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    clips, channels, frames, joints = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(clips * frames, joints * channels)
    rows = rows[:, state[f"{name}.shift_in"]].view(-1, joints, channels)
    rows = rows * (torch.tanh(state[f"{name}.Feature_Mask"]) + 1)
    rows = rows @ state[f"{name}.Linear_weight"] + state[f"{name}.Linear_bias"]
    rows = _normed(state, f"{name}.bn", rows.flatten(1)[:, state[f"{name}.shift_out"]])
    y = rows.view(clips, frames, joints, -1).permute(0, 3, 1, 2)
    down = _convolved(state, name, ("down.0", "down.1"), x) if f"{name}.down.0.weight" in state else x
    return functional.relu(y + down)


def _temporal(state: dict[str, Tensor], name: str, x: Tensor, stride: int) -> Tensor:
    x = _shifted(_normed(state, f"{name}.bn", x), state, f"{name}.shift_in", 1)
    linear = f"{name}.temporal_linear"
    x = functional.relu(functional.conv2d(x, state[f"{linear}.weight"], state[f"{linear}.bias"]))
    return _normed(state, f"{name}.bn2", _shifted(x, state, f"{name}.shift_out", stride))


def _shifted(x: Tensor, state: dict[str, Tensor], name: str, stride: int) -> Tensor:
    """Between the four places around where each channel looks; nothing lies beyond the edges."""
    channels, frames, joints = x.shape[1:]
    ypos = state[f"{name}.ypos"] + (0.5 if stride > 1 else 0.0)
    row = (torch.arange(0, frames, stride) + ypos[:, None])[:, :, None]  # (C, T', 1)
    column = (torch.arange(joints) + state[f"{name}.xpos"][:, None])[:, None]  # (C, 1, V)
    channel = torch.arange(channels)[:, None, None]
    total = 0
    for top in (row.floor(), row.floor() + 1):
        for left in (column.floor(), column.floor() + 1):
            share = (1 - (row - top).abs()) * (1 - (column - left).abs())
            inside = (top >= 0) & (top < frames) & (left >= 0) & (left < joints)
            places = top.clamp(0, frames - 1).long(), left.clamp(0, joints - 1).long()
            total = total + x[:, channel, *places] * (share * inside)
    return total


def _convolved(
    state: dict[str, Tensor], name: str, parts: tuple[str, str], x: Tensor, stride: int = 1
) -> Tensor:
    weight, bias = state[f"{name}.{parts[0]}.weight"], state[f"{name}.{parts[0]}.bias"]
    y = functional.conv2d(x, weight, bias, stride=(stride, 1))
    return _normed(state, f"{name}.{parts[1]}", y)


def _normed(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return functional.batch_norm(x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"])
