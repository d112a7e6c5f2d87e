"""The run's log: one JSON line an epoch in log.jsonl, and the same for TensorBoard."""

import json
import math
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ssl_skeleton.files import write_atomically, writing

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_MEND = "then go on with --resume"
_show_thread_error = threading.excepthook


class RunLog:
    """Appends epochs to `log.jsonl` and `tensorboard/<stage>/` of a run folder.

    What cannot be written, as on a full disk, is a UserError.
    """

    def __init__(self, folder: Path, stage: str, first_epoch: int) -> None:
        """Open the log of `stage`; what is there from `first_epoch` on, of a run cut short, is taken back."""
        self._path, self._board_folder = folder / "log.jsonl", folder / "tensorboard" / stage
        self._stage, self._first_epoch = stage, first_epoch
        with writing(self._path, _MEND):
            _forget(self._path, stage, first_epoch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "board" in vars(self):
            # An error that is on its way says more than that of a board which cannot be closed either.
            with writing(self._board_folder, _MEND) if error is None else suppress(OSError):
                self.board.close()

    @cached_property
    def board(self) -> "SummaryWriter":
        """TensorBoard's writer of the stage; what it is given is counted by epochs, from 1."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (slow to load)

        threading.excepthook = _leave_to_flush
        with writing(self._board_folder, _MEND):
            return SummaryWriter(str(self._board_folder), purge_step=self._first_epoch + 1)

    def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
        """Log the values of a finished epoch (counted from 1); they are on the disk when this returns.

        JSON has no infinity and no NaN: they are null.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line: dict[str, Any] = {"stage": self._stage, "epoch": epoch, **finite}
        with writing(self._path, _MEND), self._path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with writing(self._board_folder, _MEND):
            for name, value in values.items():
                self.board.add_scalar(name, value, epoch)
            self.board.flush()


def _leave_to_flush(args: threading.ExceptHookArgs) -> None:
    """Show the error of a thread, but for one of TensorBoard's writing thread, which `flush` raises again."""
    writes = type(args.thread).__module__.startswith("tensorboard.")
    if not (writes and isinstance(args.exc_value, OSError)):
        _show_thread_error(args)


def _forget(path: Path, stage: str, first_epoch: int) -> None:
    """Take back the lines of `stage` after `first_epoch`, and whatever is no line of a log.

    A run that is killed while it writes leaves half a line, a machine that loses its power anything. A link
    gives way to a file: to write through one may be to write anywhere.
    """
    if not os.path.lexists(path):
        return
    kept = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        place = _place(line)
        if place is not None and (place[0] != stage or place[1] <= first_epoch):
            kept.append(line + b"\n")
    write_atomically(path, lambda file: file.write(b"".join(kept)))


def _place(line: bytes) -> tuple[str, int] | None:
    """The stage and the epoch of a line; None when it is none of a log."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    stage, epoch = entry.get("stage"), entry.get("epoch")
    return (stage, epoch) if isinstance(stage, str) and isinstance(epoch, int) else None
