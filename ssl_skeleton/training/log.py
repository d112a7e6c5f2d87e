"""The run's log: one JSON line an epoch in log.jsonl, and the same for TensorBoard."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch.utils.tensorboard import SummaryWriter

from ssl_skeleton.files import write_text


class RunLog:
    """Appends epochs to `log.jsonl` and `tensorboard/` of a run folder."""

    def __init__(self, folder: Path, stage: str, first_epoch: int) -> None:
        """Open the log of `stage`; lines from `first_epoch` on (of a run cut short) are taken back."""
        self._path = folder / "log.jsonl"
        self._stage = stage
        _forget(self._path, stage, first_epoch)
        self._board = SummaryWriter(str(folder / "tensorboard" / stage), purge_step=first_epoch + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()

    def epoch(self, epoch: int, values: dict[str, float]) -> None:
        """Log the mean values of a finished epoch (counted from 1)."""
        line: dict[str, Any] = {"stage": self._stage, "epoch": epoch, **values}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, epoch)


def _forget(path: Path, stage: str, first_epoch: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed while it wrote
        if entry["stage"] != stage or entry["epoch"] <= first_epoch:
            kept.append(line + "\n")
    write_text(path, "".join(kept))
