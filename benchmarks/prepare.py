"""How fast recordings become a store, and that its memory does not grow with their number. For Linux.

    python benchmarks/prepare.py [--files 500 4000] [--frames 84] [--full] [--out results.json]

It writes files of the form of NTU RGB+D into a temporary folder: `--distinct` different ones, each of which
then stands under many names as hard links. On these it measures, in turns within each round: two plain
readers (line by line, each joint line split; one makes an array of each line, the other one of each body and
frame), the parser alone, and the command `prepare` from a folder and from a zip, with one process and with
all cores. Printed are medians over the
rounds. A command's seconds are those of the wall clock, its start included; its memory is the most that it
and its processes hold at a time, what they share counted once. All files are in the page cache, so that no
disk is measured. `--full` adds a row with as many files as NTU RGB+D 60 has, the size of that store and the
time to open it.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from skeleton_files import link, pack, read_by_bodies, read_plainly, write_texts

from ssl_skeleton.data.parsing.ntu import parse_bodies
from ssl_skeleton.environment import describe_environment
from ssl_skeleton.files import write_json

FULL = 56_880
CORES = len(os.sched_getaffinity(0))
BLOCK = 20  # files that are read in one way before the other way has its turn
PLAIN, BY_BODIES = "plain, by joint", "plain, by body"
READ_ALONE = 200  # files for the plain reader and the parser alone
OPENING = """
import sys, time
from pathlib import Path
from ssl_skeleton.data.store import open_store
for _ in range(5):
    start = time.perf_counter()
    open_store(Path(sys.argv[1]))
    print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Timing:
    """One measurement; `peak_mb` is None where the memory was not measured."""

    files: int
    processes: int
    seconds: float
    cpu_seconds: float
    peak_mb: float | None = None

    @property
    def rate(self) -> float:
        """Files per second."""
        return self.files / self.seconds


@dataclass(frozen=True)
class Row:
    """A line of the table: medians; two compare a core with the plain readers of the same round."""

    what: str
    files: int
    processes: int
    seconds: float
    cpu_seconds: float
    files_per_second: float
    to_plain: float
    to_bodies: float
    peak_mb: float | None


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, write the files, measure, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, nargs="+", default=[500, 4000], metavar="N")
    parser.add_argument("--frames", type=float, default=84, help="mean frames of a clip (%(default)s)")
    parser.add_argument("--distinct", type=int, default=400, help="different files (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help=f"also {FULL} files")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all results as JSON")
    given = parser.parse_args(arguments)
    results: dict[str, Any] = {"environment": {**describe_environment(torch.device("cpu")), "cores": CORES}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = write_texts(folder / "texts", given.distinct, given.frames)
        results["mean_bytes"] = round(statistics.mean(path.stat().st_size for path in texts))
        rows = [row for files in given.files for row in measure(folder, texts, files, given.rounds)]
        if given.full:
            row, results["full_store"] = measure_full(folder, texts)
            rows.append(row)
    print(table(rows))
    for what, value in results.get("full_store", {}).items():
        print(f"{what}: {value}")
    if given.out:
        write_json(given.out, results | {"rows": [asdict(row) for row in rows]})


def measure(folder: Path, texts: Sequence[Path], files: int, rounds: int) -> list[Row]:
    """All rows for one number of files."""
    source = folder / f"{files}"
    paths = link(texts, source, files)
    archive = pack(paths, folder / f"{files}.zip")
    timings: dict[str, list[Timing]] = {}
    for _ in range(rounds):
        for what, timing in alternate(paths[:READ_ALONE]).items():
            timings.setdefault(what, []).append(timing)
        for what, where in (("prepare, folder", source), ("prepare, zip", archive)):
            for processes in sorted({1, CORES}):
                timing = time_prepare(where, folder / "store", files, processes)
                timings.setdefault(f"{what}, {processes}", []).append(timing)
                shutil.rmtree(folder / "store")
    archive.unlink()
    shutil.rmtree(source)
    return [row(what, found, timings) for what, found in timings.items()]


def alternate(paths: Sequence[Path]) -> dict[str, Timing]:
    """Time the plain readers and the parser alone, in turns."""

    def parse(path: Path) -> None:
        parse_bodies(path.read_bytes())

    ways: dict[str, Callable[[Path], object]] = {
        PLAIN: read_plainly,
        BY_BODIES: read_by_bodies,
        "parser alone": parse,
    }
    seconds, cpu_seconds = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0.0)
    for first in range(0, len(paths), BLOCK):
        for way, read in ways.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            for path in paths[first : first + BLOCK]:
                read(path)
            seconds[way] += time.perf_counter() - start
            cpu_seconds[way] += time.process_time() - cpu_start
    return {way: Timing(len(paths), 1, seconds[way], cpu_seconds[way]) for way in ways}


def time_prepare(source: Path, out: Path, files: int, processes: int) -> Timing:
    """Run the command once."""
    command = ["-m", "ssl_skeleton.prepare", "ntu60", "--source", str(source), "--out", str(out)]
    with (out.parent / "output").open("w+") as output:
        start, cpu_start = time.perf_counter(), cpu_of_children()
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, *command, "--processes", str(processes)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        peaks = [0.0]
        watcher = threading.Thread(target=watch, args=(child, peaks))
        watcher.start()
        code = child.wait()
        seconds, cpu_seconds = time.perf_counter() - start, cpu_of_children() - cpu_start
        watcher.join()
        output.seek(0)
        said = output.read()
    if code or f"{files} clips" not in said:
        raise SystemExit(f"prepare ended with {code}: {said}")
    return Timing(files, processes, seconds, cpu_seconds, peaks[0])


def cpu_of_children() -> float:
    """The CPU seconds of all processes that were started from here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def watch(child: subprocess.Popen[bytes], peaks: list[float]) -> None:
    """Keep in `peaks` the most memory (MB) that the processes of a child's session hold at a time."""
    while child.returncode is None:
        peaks[0] = max(peaks[0], sum(memory(pid) for pid in members(child.pid)))
        time.sleep(0.05)


def members(session: int) -> list[Path]:
    """The folders in /proc of all processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session:
            found.append(folder)
    return found


def memory(process: Path) -> float:
    """The memory of a process in MB, its share of what it has in common with others."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def row(what: str, timings: Sequence[Timing], every: Mapping[str, Sequence[Timing]]) -> Row:
    """Medians over the rounds."""

    def ratio(plain: Sequence[Timing]) -> float:
        ratios = [t.rate / t.processes / p.rate for t, p in zip(timings, plain, strict=True)]
        return round(statistics.median(ratios), 2)

    peaks = [t.peak_mb for t in timings if t.peak_mb is not None]
    return Row(
        what,
        timings[0].files,
        timings[0].processes,
        round(statistics.median(t.seconds for t in timings), 3),
        round(statistics.median(t.cpu_seconds for t in timings), 3),
        round(statistics.median(t.rate for t in timings), 1),
        ratio(every[PLAIN]),
        ratio(every[BY_BODIES]),
        round(statistics.median(peaks), 1) if peaks else None,
    )


def measure_full(folder: Path, texts: Sequence[Path]) -> tuple[Row, dict[str, float]]:
    """The row of all files of NTU RGB+D 60, with all cores, and facts of their store."""
    source, store = folder / "full", folder / "store"
    plain = alternate(link(texts, source, FULL)[:READ_ALONE])
    timing = time_prepare(source, store, FULL, CORES)
    size = sum(path.stat().st_size for path in store.iterdir())
    opening = subprocess.run(  # noqa: S603
        [sys.executable, "-c", OPENING, str(store)], capture_output=True, text=True, check=True
    )
    seconds = [float(line) for line in opening.stdout.split()]
    facts = {
        "store_gb": round(size / 1e9, 3),
        "open_first_seconds": round(seconds[0], 4),  # in a fresh process, without its imports
        "open_best_of_5_seconds": round(min(seconds), 4),
    }
    every = {what: [found] for what, found in plain.items()}
    return row(f"prepare, folder, {CORES}", [timing], every), facts


def table(rows: Sequence[Row]) -> str:
    """The rows for a person."""
    titles = ("files", "processes", "seconds", "CPU s", "files/s", "x plain", "x bodies", "peak MB")
    lines = [" " * 20 + "".join(f"{title:>10}" for title in titles)]
    for row in rows:
        peak = "-" if row.peak_mb is None else f"{row.peak_mb:.0f}"
        counts = f"{row.files:>10}{row.processes:>10}{row.seconds:>10.2f}{row.cpu_seconds:>10.2f}"
        rates = f"{row.files_per_second:>10.0f}{row.to_plain:>10.2f}{row.to_bodies:>10.2f}{peak:>10}"
        lines.append(f"{row.what:<20}{counts}{rates}")
    told = "x plain, x bodies: files per second and core, against the plain readers"
    return "\n".join([*lines, told])


if __name__ == "__main__":
    main(sys.argv[1:])
