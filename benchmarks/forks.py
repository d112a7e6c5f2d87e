"""`pretrain` in processes of its own, which signals reach at any moment.

A process that loads torch takes seconds. So most runs are forks of one server that has loaded all there is,
and has computed nothing yet; the others are started as anybody starts them. Both are processes like any
other.
"""

import atexit
import functools
import importlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

from tqdm import tqdm

from ssl_skeleton import pretrain
from ssl_skeleton.cli import run_command

SAVING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # after which training saves and leaves


class Running(Protocol):
    """A process that trains."""

    pid: int

    def code(self, seconds: float | None = None) -> int | None:
        """Its exit code once it has ended, -n after signal n; None if it has not within that time."""


class Server:
    """A process that has loaded all that training needs, and gives forks of itself."""

    def __init__(self) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen([sys.executable, __file__], text=True, **pipes)  # noqa: S603
        self._lock = threading.Lock()

    def ask(self, **question: object) -> int | None:
        """Fork to `train`, which gives the number of the fork, or how the fork `pid` ended, if it has."""
        pipe, answers = self._process.stdin, self._process.stdout
        assert pipe is not None and answers is not None  # noqa: S101, PT018
        with self._lock:
            pipe.write(json.dumps(question) + "\n")
            pipe.flush()
            answer: int | None = json.loads(answers.readline())
        return answer

    def close(self) -> None:
        """End it; its forks stay."""
        self._process.communicate()


@functools.cache
def server() -> Server:
    """The one server of this process."""
    found = Server()
    atexit.register(found.close)
    return found


def serve() -> None:
    """Be the server, as long as there are questions."""
    for name in ("torch.utils.tensorboard", "torch._dynamo"):  # which training loads when it needs them
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        question = json.loads(line)
        if "pid" in question:
            found, status = os.waitpid(question["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if found else None
        else:
            answer = os.fork() or train(**question)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


@dataclass
class Forked:
    """A fork of the server."""

    pid: int
    _code: int | None = None

    def code(self, seconds: float | None = None) -> int | None:
        """As `Running` says."""
        until = math.inf if seconds is None else time.monotonic() + seconds
        while self._code is None:
            self._code = server().ask(pid=self.pid)
            if self._code is None and time.monotonic() >= until:
                break
            time.sleep(0.0005)
        return self._code


@dataclass(frozen=True)
class Apart:
    """A process that was started by itself."""

    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def code(self, seconds: float | None = None) -> int | None:
        """As `Running` says."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None


def start(
    recipe: Path, runs: Path, output: Path, *, apart: bool = False, largest: int | None = None
) -> Running:
    """Train the recipe, or go on with it, in `runs`; what the command says goes to the file `output`.

    A fork may write no file of more than `largest` bytes.
    """
    words = ["--cfg", str(recipe), "--runs", str(runs), "--resume"]
    if apart:
        command = [sys.executable, "-m", "ssl_skeleton.pretrain", *words]
        with output.open("wb") as file:
            return Apart(subprocess.Popen(command, stdout=file, stderr=file))  # noqa: S603 - our own command
    pid = server().ask(words=words, output=str(output), largest=largest)
    assert pid is not None  # noqa: S101
    return Forked(pid)


def train(words: Sequence[str], output: str, largest: int | None = None) -> NoReturn:
    """Be a fork that trains, and nothing else. Signals wait until it has begun."""
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    signal.pthread_sigmask(signal.SIG_BLOCK, SAVING)
    tqdm.set_lock(threading.RLock())  # its own one is shared with other processes, and outlives a kill
    with open(output, "wb", buffering=0) as said, open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)

    def main(arguments: Sequence[str]) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SAVING)
        pretrain.main(arguments)

    code = run_command(main, words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve()
