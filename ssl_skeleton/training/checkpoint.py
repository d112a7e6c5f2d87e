"""Checkpoints: tensors and plain values in one file, written atomically, opened without pickle."""

import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ssl_skeleton.errors import UserError
from ssl_skeleton.files import write_atomically

FORMAT = 1


@dataclass
class Checkpoint:
    """Where a stage stands: `step` batches of epoch `epoch` (from 0) are done.

    `totals` are the sums of the logged values over those batches, so that an epoch's mean is whole again
    after a stop in mid-epoch.
    """

    stage: str
    epoch: int
    step: int
    pretext: dict[str, Any]
    optimiser: dict[str, Any]
    totals: dict[str, float]
    format: int = FORMAT


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of an older one."""
    buffer = io.BytesIO()
    torch.save(vars(checkpoint), buffer)  # not a deep copy: shared tensors stay shared
    try:
        write_atomically(path, lambda file: file.write(buffer.getbuffer()))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); the one before is kept") from None


def load_checkpoint(path: Path, stage: str) -> Checkpoint:
    """Read a stage's checkpoint onto the CPU; UserError when it is missing, damaged or something else."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; was this stage trained?")
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise anything, IndexError as well as EOFError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: damaged or no checkpoint ({reason})") from None
    if not _is_checkpoint(tree) or tree["format"] != FORMAT or tree["stage"] != stage:
        raise UserError(f"{path}: not a checkpoint of stage {stage} in format {FORMAT}")
    return Checkpoint(**tree)


def _is_checkpoint(tree: object) -> bool:
    """Whether a loaded file has the fields of a checkpoint, each of its type."""
    if not isinstance(tree, dict) or set(tree) != {field.name for field in fields(Checkpoint)}:
        return False
    counts = [tree["epoch"], tree["step"], tree["format"]]
    tables = [tree["pretext"], tree["optimiser"], tree["totals"]]
    return (
        all(isinstance(count, int) and count >= 0 for count in counts)
        and all(isinstance(table, dict) for table in tables)
        and all(isinstance(name, str) for table in (tree["pretext"], tree["totals"]) for name in table)
        and all(isinstance(tensor, torch.Tensor) for tensor in tree["pretext"].values())
        and all(isinstance(total, float) for total in tree["totals"].values())
    )


def load_state(module: torch.nn.Module, state: dict[str, Any], where: Path) -> None:
    """Load a state into a module; UserError when it is of another architecture."""
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | state.keys()):
        found = tuple(state[name].shape) if name in state else None
        needed = tuple(wanted[name].shape) if name in wanted else None
        if found != needed:
            raise UserError(
                f"{where}: of another architecture than the recipe's: {name} is {found or 'absent'}, "
                f"not {needed or 'absent'}; check the recipe, or train again"
            )
    module.load_state_dict(state)
