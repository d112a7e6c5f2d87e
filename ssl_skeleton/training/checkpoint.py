"""Checkpoints: tensors and plain values in one file, written atomically, opened without pickle."""

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_skeleton.encoders.tensor_file import load_tensors, read_tensor_file
from ssl_skeleton.errors import UserError
from ssl_skeleton.files import place_again, remove_leftovers, write_atomically, writing

FORMAT = 2  # 1 had neither `scaler` nor `best`; it is still read


@dataclass
class Checkpoint:
    """Where a stage stands: `step` batches of epoch `epoch` (from 0) are done.

    `totals` are the sums of the logged values over those batches, so that an epoch's mean is whole again
    after a stop in mid-epoch. `scaler` is the state of the loss scaling of fp16, and `best` the lowest mean
    loss of any epoch so far, where the best one is kept.
    """

    stage: str
    epoch: int
    step: int
    pretext: dict[str, Any]
    optimiser: dict[str, Any]
    totals: dict[str, float]
    scaler: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    format: int = FORMAT


class Checkpoints:
    """The checkpoints of one stage in a run folder.

    `checkpoints/<stage>.pt` is always the newest. `<stage>-epoch-0010.pt` stand beside it for the last `keep`
    ends of epochs, when these are more than one, and `<stage>-best.pt` for the epoch of the lowest mean loss
    with `keep_best`. They are put in place before the newest: a run that is killed between the two comes to
    that epoch again.
    """

    def __init__(self, folder: Path, stage: str, keep: int = 1, keep_best: bool = False) -> None:
        self.folder, self.stage, self.keep, self.keep_best = folder, stage, keep, keep_best
        self.path = folder / "checkpoints" / f"{stage}.pt"
        self.aside = self.path.with_suffix(".not-finite.pt")
        self._best: float | None = None  # of the epochs so far; goes into every checkpoint

    def load(self) -> Checkpoint | None:
        """The newest checkpoint, None when there is none; UserError when it is damaged."""
        if not self.path.exists():
            return None
        found = load_checkpoint(self.path, self.stage)
        self._best = found.best
        return found

    def save(self, checkpoint: Checkpoint, epoch_loss: float | None = None) -> None:
        """Write the newest checkpoint; at the end of an epoch, of mean loss `epoch_loss`, keep it as asked.

        The lowest loss is remembered from one call, or `load`, to the next: `checkpoint.best` is filled in
        here. Raises UserError, and leaves the one before, when it cannot be written or is not finite.
        """
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: the run folder is gone; move it back, and go on with --resume")
        remove_leftovers(self.path.parent)
        self._check_finite(checkpoint)
        names = []
        if epoch_loss is not None and self.keep > 1:
            names.append(self.path.with_name(f"{self.stage}-epoch-{checkpoint.epoch:04}.pt"))
        best = checkpoint.best if self._best is None else self._best
        if epoch_loss is not None and self.keep_best and (best is None or epoch_loss < best):
            names.append(self.path.with_name(f"{self.stage}-best.pt"))
            best = epoch_loss

        def place(whole: Path) -> None:
            for name in names:
                place_again(whole, name)
            self._forget_older()

        _write(self.path, vars(replace(checkpoint, best=best)), place)
        self._best = best

    def save_aside(self, checkpoint: Checkpoint, index: Tensor | None = None) -> None:
        """Write a checkpoint to look at to `aside`, with the clips (N,) of the batch that it came to."""
        _write(self.aside, vars(checkpoint) | {"index": index}, lambda whole: None)

    def _check_finite(self, checkpoint: Checkpoint) -> None:
        finite = {name: tensor.isfinite().all() for name, tensor in checkpoint.pretext.items()}
        if not finite or torch.stack(list(finite.values())).all():  # one transfer from a GPU
            return
        first = next(name for name, whether in finite.items() if not whether)
        self.save_aside(checkpoint)
        raise UserError(
            f"stage {self.stage}, epoch {checkpoint.epoch}, step {checkpoint.step}: {first} is not finite; "
            f"the state is in {self.aside}; lower the learning rate or clip gradients, and go on with "
            "--resume-anyway"
        )

    def _forget_older(self) -> None:
        """Remove all but the last `keep` ends of epochs; of one alone, the newest checkpoint is that."""
        pattern = re.compile(rf"{re.escape(self.stage)}-epoch-(\d{{4,}})\.pt")
        found = ((pattern.fullmatch(path.name), path) for path in self.path.parent.iterdir())
        ends = sorted(((int(match[1]), path) for match, path in found if match), reverse=True)
        for _, path in ends[self.keep if self.keep > 1 else 0 :]:
            path.unlink()


def _write(path: Path, tree: dict[str, Any], placing: Callable[[Path], object]) -> None:
    buffer = io.BytesIO()
    torch.save(tree, buffer)  # not a deep copy: shared tensors stay shared
    kept = "the one before is kept; " if path.exists() else ""
    with writing(path, f"{kept}then go on with --resume"):
        write_atomically(path, lambda file: file.write(buffer.getbuffer()), placing)


def load_checkpoint(path: Path, stage: str) -> Checkpoint:
    """Read a stage's checkpoint onto the CPU; UserError when it is missing, damaged or something else.

    Its tensors take no more memory than the file, whoever wrote it.
    """
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint; was this stage trained?")
    try:
        tree = read_tensor_file(path)
    except UserError as error:
        mend = "put a copy of an older one in its place, or remove it to train this stage from its start"
        raise UserError(f"{error}; {mend}") from None
    if type(tree.get("format")) is int and tree["format"] == 1:
        tree = {"scaler": {}, "best": None, **tree, "format": FORMAT}
    if not _is_checkpoint(tree):
        raise UserError(f"{path}: not a checkpoint in format {FORMAT}")
    if tree["stage"] != stage:
        raise UserError(f"{path}: is of stage '{tree['stage']}', not of '{stage}'; was it renamed?")
    return Checkpoint(**tree)


def _is_checkpoint(tree: dict[str, Any]) -> bool:
    """Whether a loaded file has the fields of a checkpoint, each of its type."""
    if set(tree) != {field.name for field in fields(Checkpoint)}:
        return False
    numbers = (tree["totals"], tree["scaler"], {"best": 0.0 if tree["best"] is None else tree["best"]})
    return (
        type(tree["stage"]) is str
        and all(type(tree[name]) is int and tree[name] >= 0 for name in ("epoch", "step", "format"))
        and tree["format"] == FORMAT
        and all(isinstance(table, dict) for table in (tree["pretext"], tree["optimiser"], *numbers))
        and all(isinstance(name, str) for table in (tree["pretext"], *numbers) for name in table)
        and all(isinstance(tensor, Tensor) for tensor in tree["pretext"].values())
        and all(type(value) in (int, float) for table in numbers for value in table.values())
        and all(math.isfinite(value) for table in numbers for value in table.values())
        and ("loss" in tree["totals"] if tree["step"] else not tree["totals"])
    )


def load_state(module: nn.Module, state: Mapping[str, Tensor], where: Path) -> None:
    """Load a state into a module; UserError when it is of another architecture, or not finite."""
    hint = "; check the recipe, which may have another architecture, or train again"
    load_tensors(module, state, where, hint)
