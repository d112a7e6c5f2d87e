"""What it costs that ranks share a batch: two ranks with a core each, against one.

    python benchmarks/ranks.py --out ranks.json
    python benchmarks/ranks.py --only inf --batch 128 --precision bf16

Three cases alternate, each in processes of its own with one thread a rank: two ranks on a batch, one rank on
the same batch, and one rank on half of it, which is what each of the two has to compute. `waiting` is the
share of a step's time in which a rank's thread does not compute, be it for an exchange or for want of a
core; `under way` that in which an exchange is, also while the rank computes, by torch's profiler in steps of
their own. What ranks lose is told by the whole: how much longer two take for a batch than one does for the
half. Values are medians over rounds, of the slower rank. The clips and recipes are those of `pretrain.py`.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from crrl import STAGES, OurTraining, Work
from measuring import write_results
from torch.profiler import ProfilerActivity, profile
from walks import TRAINING, nw_ucla_lengths, write_walks

from ssl_skeleton import ranks
from ssl_skeleton.cli import count
from ssl_skeleton.files import write_json


@dataclass(frozen=True)
class Case:
    """So many ranks on a global batch."""

    name: str
    ranks: int
    batch: int


@dataclass(frozen=True)
class Timing:
    """Seconds of a step, and the shares of it in which the rank waits and an exchange is under way."""

    seconds: float
    waiting: float
    under_way: float


@dataclass(frozen=True)
class Row:
    """A line of the table: medians over the rounds."""

    pretext: str
    precision: str
    case: str
    ranks: int
    batch: int
    seconds: float
    clips_per_second: float
    waiting: float
    under_way: float


@dataclass(frozen=True)
class Summary:
    """Of one batch: what two ranks lose, of their time, and how many times as fast as one they are."""

    pretext: str
    precision: str
    batch: int
    lost: float
    faster: float


def rank_main(given: argparse.Namespace) -> None:
    """What each rank does: train, and write down how long its steps took."""
    torch.set_num_threads(1)
    with ranks.joined(torch.device("cpu")):
        work = Work(given.only[0], given.store, "cpu", small=given.quick)
        training = work.ours(given.precision, given.batch[0])
        timing = time_epoch(training)
        write_json(given.out / f"{ranks.rank()}.json", asdict(timing))


def time_epoch(training: OurTraining) -> Timing:
    """Time the steps of an epoch, behind one that does not count, and profile those of another."""
    steps = -(-training.task.clips // training.config.batch)
    for _ in range(steps):
        training()
    began, computing = time.perf_counter(), time.thread_time()
    for _ in range(steps):
        training()
    computed, seconds = time.thread_time() - computing, time.perf_counter() - began
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        began = time.perf_counter()
        for _ in range(steps):
            training()
        profiled = time.perf_counter() - began
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.name.startswith("gloo:")
    ]
    return Timing(seconds / steps, 1 - computed / seconds, together(spans) / 1e6 / profiled)


def together(spans: Sequence[tuple[float, float]]) -> float:
    """How long at least one of the spans is on."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total


def run(case: Case, store: Path, name: str, given: argparse.Namespace) -> Timing:
    """Start the ranks of a case as torchrun would; the timing of the slowest."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--store", store, "--only", name, "--batch", case.batch, "--out", folder]
        words += ["--precision", given.precision, *["--quick"] * given.quick]
        command = [sys.executable, __file__, *map(str, words)]
        place = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": str(_free_port())}
        started = [
            subprocess.Popen(  # noqa: S603
                command,
                env=os.environ | place | {"WORLD_SIZE": str(case.ranks), "RANK": str(rank)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(case.ranks)
        ]
        said = [child.communicate()[1] for child in started]
        found = [Timing(**json.loads(path.read_text())) for path in Path(folder).glob("*.json")]
    if len(found) != case.ranks:
        raise SystemExit(f"{case.name} failed: {said[0]}")
    return max(found, key=lambda timing: timing.seconds)


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("localhost", 0))
        return int(place.getsockname()[1])


def measure(store: Path, name: str, batch: int, given: argparse.Namespace) -> tuple[list[Row], Summary]:
    """The lines of one pretext and one batch, and what they come to."""
    cases = [Case("two ranks", 2, batch), Case("one rank", 1, batch), Case("one, half", 1, batch // 2)]
    found: dict[str, list[Timing]] = {case.name: [] for case in cases}
    for _ in range(given.rounds):
        for case in cases:
            found[case.name].append(run(case, store, name, given))
    rows = []
    for case in cases:
        seconds, waiting, under_way = (
            statistics.median(getattr(timing, what) for timing in found[case.name])
            for what in ("seconds", "waiting", "under_way")
        )
        facts = (name, given.precision, case.name, case.ranks, case.batch)
        rows.append(Row(*facts, seconds, case.batch / seconds, waiting, under_way))
    both, one, half = ([timing.seconds for timing in found[case.name]] for case in cases)
    lost = statistics.median(1 - part / whole for part, whole in zip(half, both, strict=True))
    faster = statistics.median(alone / whole for alone, whole in zip(one, both, strict=True))
    return rows, Summary(name, given.precision, batch, lost, faster)


def describe(row: Row) -> str:
    """A line for a person."""
    facts = f"{row.pretext:<5}{row.precision:<6}{row.case:<11}{row.batch:>6}{row.seconds:>9.4f}"
    return f"{facts}{row.clips_per_second:>9.1f}{row.waiting:>9.1%}{row.under_way:>11.1%}"


TITLES = f"{'':<11}{'':<11}{'batch':>6}{'s a step':>9}{'clips/s':>9}{'waiting':>9}{'under way':>11}"


def main(arguments: Sequence[str]) -> None:
    """Measure and print the table, or be a rank."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=STAGES, default=["cml"], metavar="PRETEXT", help="(cml)")
    parser.add_argument("--batch", nargs="+", type=count, default=[64, 256], metavar="N", help="(64 256)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="(%(default)s)")
    parser.add_argument("--rounds", type=count, default=3, metavar="N", help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose numbers mean nothing")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)  # given to a rank
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as JSON")
    given = parser.parse_args(arguments)
    if given.store:
        rank_main(given)
        return
    rows, summaries = [], []
    print(TITLES)
    with tempfile.TemporaryDirectory() as folder:
        store = write_walks(Path(folder) / "walks", nw_ucla_lengths(24 if given.quick else TRAINING))
        for name in given.only:
            for batch in given.batch:
                found, summary = measure(store.path, name, batch, given)
                print("\n".join(map(describe, found)))
                told = f"lose {summary.lost:.1%} of their time, {summary.faster:.2f} times as fast as one"
                print(f"{name}, batch {batch}: two ranks {told}", flush=True)
                rows += found
                summaries.append(summary)
    write_results(given.out, {"rows": [*map(asdict, rows)], "summaries": [*map(asdict, summaries)]})


if __name__ == "__main__":
    main(sys.argv[1:])
