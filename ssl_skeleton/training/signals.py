"""Signals that ask training to stop: noted while a step is made, and heeded by all ranks after the same step.

A scheduler sends SIGTERM, or as a warning SIGUSR1, which Windows does not have; Ctrl-C sends SIGINT.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch

from ssl_skeleton import ranks
from ssl_skeleton.errors import Stopped

_NUMBERS = [int(found) for found in signal.Signals if found.name in ("SIGINT", "SIGTERM", "SIGUSR1")]
_Handler = Callable[[int, FrameType | None], None]


class Asked:
    """The signals that came to this rank, and which of them the ranks agreed to heed."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self.agreed: int | None = None

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """Keep a signal in mind; a second Ctrl-C leaves at once."""
        if number == signal.SIGINT and number in self.came:
            raise KeyboardInterrupt("what came after the last checkpoint is lost; go on with --resume")
        self.came.append(number)

    def flags(self) -> list[float]:
        """For every signal, 1 where it came to this rank; summed over ranks, for `agree`."""
        return [float(number in self.came) for number in _NUMBERS]

    def agree(self, sums: Sequence[float]) -> None:
        """Heed a signal that came to any rank, given the flags summed over ranks."""
        if self.agreed is None:
            self.agreed = next((number for number, came in zip(_NUMBERS, sums, strict=True) if came), None)

    def ask(self, device: torch.device) -> None:
        """Agree now; all ranks call it at once, and none goes on before the others."""
        self.agree(ranks.total(torch.tensor(self.flags(), device=device)).tolist())


@contextmanager
def noted() -> Iterator[Asked]:
    """Within it, signals are noted, to be heeded when nothing is half done.

    One that came too late for that is heeded when all is done: it raises Stopped.
    """
    asked = Asked()
    with _handled(asked.note):
        yield asked
    if asked.came:
        raise Stopped(asked.came[0], "the end of a stage; the state is saved")


@contextmanager
def leaving() -> Iterator[None]:
    """Within it, a signal ends the command at once, as `Stopped`: what is saved is whole at any time."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Stopped(number, "loading; there was nothing to save")

    with _handled(leave):
        yield


@contextmanager
def _handled(handler: _Handler) -> Iterator[None]:
    """Handle the signals so; only a main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _NUMBERS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
