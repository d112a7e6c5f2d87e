"""Real runs of `pretrain` in processes of their own, real signals that end them, and runs that go on.

A process that loads torch takes seconds. So most runs are forks of one server that has loaded all there is,
and has computed nothing yet; the others are started as anybody starts them. Both are processes like any
other, which signals reach at any moment.
"""

import atexit
import functools
import importlib
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

import yaml
from tqdm import tqdm

from ssl_skeleton import pretrain
from ssl_skeleton.cli import run_command
from ssl_skeleton.training.checkpoint import Checkpoint, load_checkpoint

Moment = Literal["any", "start", "saving", "between"]
MOMENTS: tuple[Moment, ...] = ("any", "start", "saving", "between")
SAVING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SIGNALS = (signal.SIGKILL, *SAVING)
STAGES = ("cml", "inf")
EPOCHS = 3
_STOPPED = re.compile(r"^stopped at stage (\w+), epoch (\d+), step (\d+); the state is saved", re.MULTILINE)


def recipe(store: Path, split: str, epochs: int = EPOCHS, steps: int | None = 2) -> dict[str, Any]:
    """Two small stages that keep all that a stage can: a queue, a momentum encoder, a teacher, checkpoints.

    The first keeps one checkpoint, the second the last two and the best; each also writes one every so many
    steps.
    """
    seen = {"streams": ["joint"], "augment": {"crop": 0.5, "rotate": [10, 30, 10]}}
    contrast = {"name": "contrastive_motion", "input": seen, "hidden": 16, "outputs": 8, "queue": 10}
    fuse = {"name": "information_fuser", "teacher": STAGES[0], "hidden": 16, "input": seen}
    student = {"name": "sequence_reconstructor", "layers": 1, "hidden": 16}
    training = {"epochs": epochs, "batch": 4, "checkpoint_steps": steps}
    sgd, adamw = {"name": "sgd", "lr": 0.01}, {"name": "adamw", "lr": 0.001}
    keeping = {"keep": 2, "keep_best": True, "schedule": {"name": "cosine", "warmup": 1}}
    return {
        "name": "run",
        "device": "cpu",
        "data": {"store": str(store), "split": split, "frames": 8},
        "encoder": {"name": "gru", "hidden": 16, "layers": 2, "input_norm": "batch", "dropout": 0.1},
        "stages": [
            {"name": STAGES[0], "pretext": contrast, "training": training | {"optimiser": sgd}},
            {
                "name": STAGES[1],
                "pretext": fuse | {"student": student},
                "training": training | keeping | {"optimiser": adamw},
            },
        ],
        "watch": {"health": 1},
    }


def write_recipe(folder: Path, tree: Mapping[str, Any]) -> Path:
    """A recipe as a file in `folder`."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


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


@dataclass(frozen=True)
class Kill:
    """A signal, so many seconds after a moment of a run; `count` is which of several saves it means."""

    signal: signal.Signals
    moment: Moment
    seconds: float
    count: int = 1


@dataclass(frozen=True)
class Struck:
    """What a kill came to: the exit code, where it hit, and what the command said."""

    kill: Kill
    code: int
    place: str
    said: str

    @property
    def hit(self) -> bool:
        """Whether the run had not ended before."""
        return self.code != 0

    def fault(self, folder: Path) -> str | None:
        """What is wrong with how the run ended; `folder` is as the kill left it."""
        number = int(self.kill.signal)
        if self.kill.signal == signal.SIGKILL or not self.hit:
            return None if self.code in (0, -number) else f"ended with {self.code}: {self.said}"
        if self.code == -number and self.place == "start" and self.kill.signal == signal.SIGUSR1:
            return None  # before the command could ask to hear it
        if self.code != 128 + number or "Traceback" in self.said:
            return f"ended with {self.code} after signal {number}: {self.said}"
        stopped = _STOPPED.search(self.said)
        if stopped is None:
            return None
        stage, epoch, step = stopped[1], int(stopped[2]) - 1, int(stopped[3])
        saved = _position(folder, stage)
        return None if saved == (epoch, step) else f"said {(epoch, step)}, but saved {saved}"


def _position(folder: Path, stage: str) -> tuple[int, int] | None:
    path = folder / "checkpoints" / f"{stage}.pt"
    if not path.exists():
        return None
    found = load_checkpoint(path, stage)
    return found.epoch, found.step


def draw_kills(seed: int, seconds: float) -> Iterator[Kill]:
    """Endless kills of runs that take so many seconds, by turns of each signal at each moment.

    Those that leave no time to save come more often, above all while a checkpoint is written.
    """
    source = random.Random(seed)  # noqa: S311 - no secret
    while True:
        kinds = [(one, moment) for one in SIGNALS for moment in MOMENTS]
        kinds += [(signal.SIGKILL, "saving")] * 3 + [(signal.SIGKILL, "any")]
        source.shuffle(kinds)
        for one, moment in kinds:
            longest = {"any": 0.4, "start": 0.2, "saving": 0.003, "between": 0.05}[moment]
            scale = seconds if moment in ("any", "start") else 1.0
            yield Kill(one, moment, source.uniform(0, longest * scale), source.randint(1, 4))


def strike(running: Running, folder: Path, kill: Kill, output: Path, epochs: int = EPOCHS) -> Struck:
    """Wait for the moment and the seconds of a kill, and kill; a run that ends before is left to.

    Its first stage has so many epochs.
    """
    reached: dict[Moment, Callable[[], bool]] = {
        "any": lambda: True,
        "start": lambda: True,
        "saving": _Saves(folder, kill.count),
        "between": lambda: _epochs_logged(folder) >= epochs,
    }
    while not (output.exists() and reached[kill.moment]()) and running.code(0) is None:
        time.sleep(0.0003)
    code = running.code(kill.seconds)
    if code is None:
        os.kill(running.pid, kill.signal)
        code = running.code()
    assert code is not None  # noqa: S101 - it has ended
    said = output.read_text(errors="replace")
    return Struck(kill, code, _place(folder, said), said)


class _Saves:
    """Tells when the n-th checkpoint, from now on, is being written."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._left = folder / "checkpoints", count
        self._seen = self._temporary()  # what an earlier kill left

    def __call__(self) -> bool:
        found = self._temporary() - self._seen
        self._left -= len(found)
        self._seen |= found
        return self._left <= 0

    def _temporary(self) -> set[str]:
        try:
            return {name for name in os.listdir(self._folder) if name.endswith(".tmp")}  # noqa: PTH208 - fast
        except FileNotFoundError:
            return set()


def _epochs_logged(folder: Path) -> int:
    try:
        return (folder / "log.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _place(folder: Path, said: str) -> str:
    """Where a run was killed, as its folder and what it said show."""
    if " clips of " not in said:
        return "start"
    checkpoints = folder / "checkpoints"
    if checkpoints.is_dir() and any(path.suffix == ".tmp" for path in checkpoints.iterdir()):
        return "saving"
    first, second = (_position(folder, stage) for stage in STAGES)
    if first is not None and not first[1] and second is None:
        return "between stages"
    return "training"


def torment(
    recipe: Path, runs: Path, kills: Iterator[Kill], count: int, *, apart: bool = False
) -> tuple[list[Struck], list[str]]:
    """Train in `runs`, killed until `count` kills hit or the run ends; then let it end.

    Gives what the kills came to, and everything that was wrong.
    """
    folder, struck, faults = runs / "run", list[Struck](), list[str]()
    output = runs / "output.txt"
    runs.mkdir(parents=True, exist_ok=True)
    while sum(one.hit for one in struck) < count:
        output.unlink(missing_ok=True)
        running = start(recipe, runs, output, apart=apart)
        struck.append(strike(running, folder, next(kills), output))
        fault = struck[-1].fault(folder)
        faults += [] if fault is None else [fault]
        if not struck[-1].hit:
            return struck, faults
    if start(recipe, runs, output, apart=apart).code() != 0:
        faults.append(f"did not end well: {output.read_text(errors='replace')}")
    return struck, faults


def differences(folder: Path, whole: Path) -> list[str]:
    """In what a finished run differs from one that was never killed; nothing of that knows the clock."""
    found = []
    names, wanted = ({*map(str, _files(place))} for place in (folder, whole))
    if names != wanted:
        found.append(f"files: {sorted(names ^ wanted)}")
    for path in sorted((whole / "checkpoints").glob("*.pt")):
        stage = path.name.split("-")[0].removesuffix(".pt")
        there = folder / "checkpoints" / path.name
        if there.exists() and not same(load_checkpoint(there, stage), load_checkpoint(path, stage)):
            found.append(f"{path.name} is another one")
    if read_log(folder) != read_log(whole):
        found.append("log.jsonl is another one")
    for stage in STAGES:
        if read_board(folder / "tensorboard" / stage) != read_board(whole / "tensorboard" / stage):
            found.append(f"tensorboard/{stage} shows something else")
    return found


def _files(folder: Path) -> list[Path]:
    """All files but TensorBoard's, of which every start makes a new one."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [path for path in files if path.parts[0] != "tensorboard"]


def same(one: object, other: object) -> bool:
    """Whether two trees of tensors and plain values are the same to the last bit."""
    if isinstance(one, Checkpoint):
        return isinstance(other, Checkpoint) and same(vars(one), vars(other))
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)  # type: ignore[call-overload,index]
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]
    if hasattr(one, "numpy"):
        facts = [(tensor.dtype, tensor.shape, tensor.numpy().tobytes()) for tensor in (one, other)]  # type: ignore[attr-defined]
        return facts[0] == facts[1]
    return one == other


_CLOCK = ("seconds", "clips_per_second")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl, without what only the clock knows."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in _CLOCK} for line in lines]


def read_board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a stage as TensorBoard shows them: steps and values by name, in order.

    A file that says from which step on it goes takes back what earlier ones have from there.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # noqa: PLC0415
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # noqa: PLC0415

    files = []
    for path in folder.glob("events.*"):
        events = [Event.FromString(raw) for raw in RawEventFileLoader(str(path)).Load()]
        if events:
            files.append((events[0].wall_time, events))
    shown: dict[str, list[tuple[int, float]]] = {}
    for _, events in sorted(files, key=lambda file: file[0]):
        for event in events:
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                for name, points in shown.items():
                    shown[name] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                if value.tag not in _CLOCK:
                    shown.setdefault(value.tag, []).append((event.step, value.simple_value))
    return {name: points for name, points in shown.items() if points}


if __name__ == "__main__":
    serve()
