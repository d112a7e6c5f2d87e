"""Several processes that stand by to be ranks, so that each of many tests need not start its own."""

import contextlib
import io
import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import distributed

from ssl_skeleton import ranks

_MOST, _SECONDS = 3, 120.0


class RankFailed(AssertionError):
    """What a rank raised, with its traceback."""


class Ranks:
    """Up to three ranks, who meet at a file: TCP takes seconds where machines look names up slowly."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["ssl_skeleton.runs.run"])
        self._workers: list[tuple[Any, Connection]] = []
        self._folder = tempfile.TemporaryDirectory()
        self._meetings = 0

    def together(self, world: int, job: Callable[..., Any], *given: Any) -> list[Any]:
        """What `job`, a function of a module that can be imported, returns on each rank, which are joined."""
        return self.apart(world, _joined, job, *given)

    def apart(self, world: int, job: Callable[..., Any], *given: Any, dies: int | None = None) -> list[Any]:
        """The same, as ranks are when torchrun has just started them; a rank that dies returns None."""
        self._start()
        self._meetings += 1
        meeting = Path(self._folder.name) / str(self._meetings)
        for rank, (_, pipe) in enumerate(self._workers[:world]):
            pipe.send_bytes(pickle.dumps((meeting, rank, world, job, given)))
        answers = [None if rank == dies else self._answer(rank) for rank in range(world)]
        if dies is not None:
            self._workers[dies][0].join(_SECONDS)
            assert self._workers[dies][0].exitcode is not None
            self.stop()
        return answers

    def stop(self) -> None:
        """End the processes; new ones are started when need be."""
        for process, pipe in self._workers:
            process.kill()
            process.join()
            pipe.close()
        self._workers.clear()

    def _start(self) -> None:
        while len(self._workers) < _MOST:
            here, there = self._context.Pipe()
            process = self._context.Process(target=_stand_by, args=(there,), daemon=True)
            process.start()
            there.close()
            self._workers.append((process, here))

    def _answer(self, rank: int) -> Any:
        pipe = self._workers[rank][1]
        try:
            fault, answer = pickle.loads(pipe.recv_bytes()) if pipe.poll(_SECONDS) else ("no answer", None)
        except EOFError:
            fault, answer = "it is gone", None
        if fault:
            self.stop()  # others may wait for it
            raise RankFailed(f"rank {rank}: {fault}")
        return answer


def command(main: Callable[[Sequence[str]], None], *arguments: str) -> tuple[int, str, str]:
    """Run a command as a rank that torchrun started: exit code, and what it writes to stdout and stderr."""
    from ssl_skeleton.cli import run_command

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run_command(main, arguments)
    return code, out.getvalue(), err.getvalue()


def _stand_by(pipe: Connection) -> None:
    torch.set_num_threads(1)
    while True:
        meeting, rank, world, job, given = pickle.loads(pipe.recv_bytes())
        try:
            with _as_torchrun_does(meeting, rank, world):
                answer = ("", job(*given))
        except Exception:
            answer = (traceback.format_exc(), None)
        pipe.send_bytes(pickle.dumps(answer))


@contextlib.contextmanager
def _as_torchrun_does(meeting: Path, rank: int, world: int) -> Iterator[None]:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    met = (distributed.FileStore(str(meeting), world), rank, world)
    with mock.patch.object(ranks, "rendezvous", return_value=iter([met])):
        yield


def _joined(job: Callable[..., Any], *given: Any) -> Any:
    with ranks.joined(torch.device("cpu")):
        return job(*given)
