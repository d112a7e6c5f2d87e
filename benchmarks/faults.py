"""How well runs outlast being killed.

    python benchmarks/faults.py --kills 100 --out faults.json

Small runs of two stages are killed at random moments with SIGKILL, and with the signals after which training
saves and leaves, and go on with --resume until they end. Then each is compared with a run that was never
killed: its checkpoints to the last bit, its log but for times, and what TensorBoard shows.
"""

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch
from forks import start
from killing import SIGNALS, Kill, Struck, draw_kills, recipe, torment, write_recipe
from same_runs import differences
from walks import write_walks

from ssl_skeleton.cli import count
from ssl_skeleton.environment import describe_environment
from ssl_skeleton.files import write_json

PLACES = ("start", "training", "saving", "between stages")
_LENGTHS = (8, 9, 10, 11, 12) * 5  # frames of the clips
_A_RUN = 8  # kills


@dataclass
class Tally:
    """What came of the kills: `hits` by signal and place, the runs, and those with the same end."""

    kills: int = 0
    runs: int = 0
    identical: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, struck: Sequence[Struck], faults: Sequence[str]) -> None:
        """Count one more run."""
        for one in struck:
            if one.hit:
                self.kills += 1
                self.hits[f"{one.kill.signal.name} {one.place}"] += 1
        self.runs += 1
        self.identical += not faults
        self.faults += faults


def kill_runs(folder: Path, cfg: Path, kills: int, seed: int, *, jobs: int = 2, apart: bool = False) -> Tally:
    """Kill runs of the recipe until so many kills hit, some runs at a time."""
    whole, tally = folder / "whole", Tally()
    began = time.perf_counter()
    whole.mkdir()
    if start(cfg, whole, folder / "output.txt", apart=apart).code() != 0:
        raise SystemExit((folder / "output.txt").read_text())
    seconds = time.perf_counter() - began
    numbers = itertools.count()

    def go(source: Iterator[Kill], wanted: int) -> None:
        done = 0
        while done < wanted:
            runs = folder / f"runs-{next(numbers)}"
            struck, faults = torment(cfg, runs, source, min(_A_RUN, wanted - done), apart=apart)
            faults += differences(runs / "run", whole / "run")
            tally.add(struck, [f"{runs.name}: {fault}" for fault in faults])
            done += sum(one.hit for one in struck)

    with ThreadPoolExecutor(jobs) as pool:
        parts = [kills // jobs + (number < kills % jobs) for number in range(jobs)]
        running = [pool.submit(go, draw_kills(seed + job, seconds), part) for job, part in enumerate(parts)]
        for one in running:
            one.result()
    return tally


def table(tally: Tally) -> str:
    """The hits by signal and place, and what came of them."""
    lines = [f"{'':<10}" + "".join(f"{place:>16}" for place in PLACES)]
    for one in SIGNALS:
        counts = (tally.hits[f"{one.name} {place}"] for place in PLACES)
        lines.append(f"{one.name:<10}" + "".join(f"{number:>16}" for number in counts))
    lines.append(f"{tally.kills} kills of {tally.runs} runs; {tally.identical} ended as if never killed")
    return "\n".join([*lines, *tally.faults])


def main(arguments: Sequence[str]) -> int:
    """Kill, print the table; 1 when a run did not end as if it had never been killed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=count, default=100, metavar="N", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments (%(default)s)")
    parser.add_argument("--jobs", type=count, default=2, metavar="N", help="runs at a time (%(default)s)")
    parser.add_argument("--apart", action="store_true", help="start every process by itself: slower by far")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as JSON")
    given = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # several small runs at a time
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = recipe(write_walks(folder / "store", _LENGTHS).path, "all")
        tally = kill_runs(
            folder, write_recipe(folder, tree), given.kills, given.seed, jobs=given.jobs, apart=given.apart
        )
    print(table(tally))
    if given.out:
        facts = {"seed": given.seed, "seconds": round(time.perf_counter() - began), "apart": given.apart}
        environment = describe_environment(torch.device("cpu"))
        write_json(given.out, {"environment": environment, **facts, **vars(tally)})
    return 0 if tally.identical == tally.runs else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
