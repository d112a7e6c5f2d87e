"""What an optimiser remembers of each weight, taken over from a checkpoint that anybody may have written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_skeleton.errors import UserError
from ssl_skeleton.training.schedule import Optimiser

_Shape = tuple[int, ...]


def load_optimiser(
    optimiser: torch.optim.Optimizer, config: Optimiser, state: Mapping[str, Any], where: Path
) -> None:
    """Load what an optimiser of `config` remembers of each weight; its options stay those of `config`.

    Only the rate, which every step sets anew, is that of the state: so what is saved again is the same.
    Raises UserError when the state, from the file `where`, is of another kind of optimiser, of other weights,
    or not finite.
    """
    groups = optimiser.state_dict()["param_groups"]
    shapes = [tuple(weight.shape) for group in optimiser.param_groups for weight in group["params"]]
    try:
        _check_groups(state.get("param_groups"), groups, {*type(config).model_fields} - {"name"})
        entries = _entries(state.get("state"), len(shapes))
        for number, entry in entries.items():
            _check_entry(entry, number, _remembered(config, shapes[number]))
    except ValueError as error:
        raise UserError(f"{where}: of another optimiser than the recipe's, {config.name} ({error})") from None
    # No two may share their memory: what one weight does to it, would be done to another's too.
    apart = {
        number: {name: _apart(value) for name, value in entry.items()} for number, entry in entries.items()
    }
    for group, found in zip(groups, state["param_groups"], strict=True):
        group["lr"] = found["lr"] if type(found["lr"]) is float else group["lr"]
    optimiser.load_state_dict({"state": apart, "param_groups": groups})


def _apart(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.clone(memory_format=torch.contiguous_format)


def _check_groups(found: Any, groups: list[dict[str, Any]], options: set[str]) -> None:
    """Raise ValueError unless these are the same groups of weights, with these options of any value."""
    if not isinstance(found, list) or not all(isinstance(group, dict) for group in found):
        raise ValueError("it has no groups of weights")
    if not all(options <= group.keys() for group in found):
        raise ValueError(f"it should have {', '.join(sorted(options))}")
    numbers = [group.get("params") for group in found]
    whole = all(isinstance(some, list) and all(type(number) is int for number in some) for some in numbers)
    if not whole or numbers != [group["params"] for group in groups]:
        raise ValueError("it has other groups of weights")


def _entries(memory: Any, weights: int) -> dict[int, dict[str, Tensor | None]]:
    """What is remembered of each weight, by its number."""
    if not isinstance(memory, dict) or not all(isinstance(entry, dict) for entry in memory.values()):
        raise ValueError("it remembers nothing of any weight")
    if not all(type(number) is int and 0 <= number < weights for number in memory):
        raise ValueError("it remembers a weight that is not there")
    return memory


def _check_entry(entry: dict[str, Any], number: int, wanted: dict[str, _Shape | None]) -> None:
    """Raise ValueError unless an entry has finite tensors of these shapes, or nothing for None."""
    if entry.keys() != wanted.keys():
        raise ValueError(f"it should remember {', '.join(wanted) or 'nothing'} of weight {number}")
    for name, shape in wanted.items():
        value = entry[name]
        if shape is None and value is None:
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.shape != shape:
            raise ValueError(f"{name} of weight {number} is not of shape {shape}")
        if not value.isfinite().all():
            raise ValueError(f"{name} of weight {number} is not finite")


def _remembered(config: Optimiser, shape: _Shape) -> dict[str, _Shape | None]:
    """What such an optimiser remembers of a weight of that shape: the shapes of tensors, None for nothing."""
    probe = nn.Parameter(torch.zeros(2, 3))
    probe.grad = torch.zeros(2, 3)
    optimiser = config.build([probe])
    optimiser.step()
    return {
        name: None if value is None else shape if value.shape == probe.shape else tuple(value.shape)
        for name, value in optimiser.state[probe].items()
    }
