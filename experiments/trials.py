"""A trial: a recipe with overrides and a seed, trained and scored by a process of its own.

    python experiments/trials.py seed=1 data.frames=64 --cfg configs/crrl_nw_ucla.yaml --run runs/frames_64

`sweep.py` and `run_seeds.py` start this for every trial. A run that is there goes on from its checkpoint, and
one that is trained is scored alone; what is printed is the trial's entry, or one for each way in which it is
scored, a line of JSON.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssl_skeleton.cli import run_command
from ssl_skeleton.data.preparation.reading import useful_cores
from ssl_skeleton.evaluation.results import COLUMNS
from ssl_skeleton.recipe import Recipe, load_recipe
from ssl_skeleton.runs.probing import PROBES, evaluate
from ssl_skeleton.runs.run import Run
from ssl_skeleton.runs.supervised import finetune
from ssl_skeleton.training.signals import leaving

EVALUATORS = (*PROBES, "finetune")
# Of a result; the confusion and the answers stay in the run folder.
_KEPT = ("evaluator", "store", "split", "protocol", "epoch", "seed", "clips", "per_class", *COLUMNS)

Entry = dict[str, Any]
"""What came of a trial: `minutes`, `environment` and a result an evaluator, or the line `error` alone."""


@dataclass(frozen=True)
class Trial:
    """A recipe with overrides and a seed; `row` is what tables call it, whatever its seed.

    `scored_as` are names and overrides of the ways in which the one run is scored; each is a row of its own.
    """

    row: str
    recipe: Path
    overrides: tuple[str, ...]
    seed: int
    scored_as: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def ways(self) -> tuple["Trial", ...]:
        """The trial as each of its rows, with all overrides of that."""
        return tuple(
            replace(
                self,
                row=f"{self.row}_{way}".removeprefix("_"),
                overrides=(*self.overrides, *change),
                scored_as=(),
            )
            for way, change in self.scored_as
        ) or (self,)

    @property
    def changes(self) -> tuple[str, ...]:
        """The overrides, with the seed."""
        return (*self.overrides, f"seed={self.seed}")

    def resolved(self) -> Recipe:
        """What is run, under the name that stands in the recipe's file; UserError when it is none."""
        return load_recipe(self.recipe, self.changes)


def run_trials(
    trials: Mapping[Path, Trial],
    evaluators: Sequence[str],
    jobs: int,
    done: Callable[[Trial, Entry], None],
) -> None:
    """Carry trials out in their run folders, `jobs` at once; `done` gets what came of each way as it ends.

    The processes share the cores. They save and end when this one ends, however it does.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, useful_cores() // jobs))}
    theirs, ours = os.pipe()  # of which the system closes our end even after SIGKILL

    def carry_out(folder: Path, trial: Trial) -> list[Entry]:
        where = ["--cfg", str(trial.recipe), "--run", str(folder), "--tied"]
        how = ["--evaluators", *evaluators, "--scored-as", json.dumps([way for _, way in trial.scored_as])]
        command = [sys.executable, os.path.relpath(__file__), *trial.changes, *where, *how]
        ended = subprocess.run(  # noqa: S603
            command, stdin=theirs, capture_output=True, text=True, env=environment, check=False
        )
        if ended.returncode == 0:
            entries: list[Entry] = json.loads(ended.stdout.splitlines()[-1])
            return entries
        line = next(iter(ended.stderr.rstrip().splitlines()[-1:]), "")
        error = line.removeprefix("error: ") or f"ended with exit code {ended.returncode}"
        return [{"error": error} for _ in trial.ways]

    with ThreadPoolExecutor(jobs) as pool:
        try:
            started = {pool.submit(carry_out, folder, trial): trial for folder, trial in trials.items()}
            for ended in as_completed(started):
                for way, entry in zip(started[ended].ways, ended.result(), strict=True):
                    done(way, entry)
        finally:
            os.close(ours)
            pool.shutdown(cancel_futures=True)
            os.close(theirs)


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, train what is not trained, score, print the entry."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="change the recipe")
    parser.add_argument("--cfg", type=Path, required=True, metavar="FILE", help="the recipe")
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="its run folder")
    parser.add_argument("--evaluators", nargs="+", choices=EVALUATORS, default=["linear", "knn"])
    parser.add_argument(
        "--scored-as", type=json.loads, default=[], metavar="JSON", help="lists of overrides for scoring"
    )
    parser.add_argument("--tied", action="store_true", help="save and end when stdin is closed")
    given = parser.parse_intermixed_args(arguments)
    if given.tied:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    recipe = load_recipe(given.cfg, [*given.overrides, f"name={given.run.name}"])
    with leaving():
        run = Run.start(recipe, given.run, resume=True)
        run.pretrain()
    print(json.dumps(entries_of(run, given.evaluators, given.scored_as), allow_nan=False))


def entries_of(run: Run, evaluators: Sequence[str], scored_as: Sequence[Sequence[str]] = ()) -> list[Entry]:
    """Score a trained run as it is, or with each of several lists of overrides."""
    ways = [Run.open(run.folder, way) for way in scored_as] or [run]
    return [entry_of(way, evaluators) for way in ways]


def entry_of(run: Run, evaluators: Sequence[str]) -> Entry:
    """All scores, the minutes that training took, and where it was trained.

    The minutes are those of the stages that are scored, and of their teachers.
    """
    stages = set(run.recipe.needed_stages)
    with (run.folder / "log.jsonl").open(encoding="utf-8") as log:
        epochs = [json.loads(line) for line in log]
    minutes = sum(epoch["seconds"] for epoch in epochs if epoch["stage"] in stages) / 60
    results = {name: evaluate(run, name) if name in PROBES else finetune(run) for name in evaluators}
    scores = {name: kept(result) for name, result in results.items()}
    return {"minutes": round(minutes, 1), "environment": _anywhere(run.noted()), **scores}


def _anywhere(environment: Mapping[str, Any]) -> dict[str, Any]:
    """An environment with its stores as seen from here: who reads it has other folders above."""
    stores = environment.get("stores", {})
    return {**environment, "stores": {os.path.relpath(path): total for path, total in stores.items()}}


def kept(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without its confusion matrices and answers."""
    baselines = {
        name: {score: scores[score] for score in COLUMNS if score in scores}
        for name, scores in result["baselines"].items()
    }
    return {name: result[name] for name in _KEPT if name in result} | {"baselines": baselines}


def scored_again(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The entry `now`; of the very same run, the scores by other evaluators `before` stay."""
    same = before.get("environment") == now["environment"]
    return {**now, **before, **now} if same else dict(now)  # those of now come first


def _end_with_stdin() -> None:
    """Save and end once nobody holds the other end of stdin: whoever started this is gone."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(run_command(main))
