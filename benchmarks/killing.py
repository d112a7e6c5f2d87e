"""Real runs of `pretrain`, real signals that end them, and runs that go on."""

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from forks import SAVING, Running, start

from ssl_skeleton.training.checkpoint import load_checkpoint

Moment = Literal["any", "start", "saving", "between"]
MOMENTS: tuple[Moment, ...] = ("any", "start", "saving", "between")
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
