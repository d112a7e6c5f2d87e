"""Trains on small disks of its own: run it by `unshare --map-root-user --mount`, which lets it make them.

Its argument is a folder with recipe.yaml and cases.json, a list of `Case` as JSON. Of every case `NAME` it
leaves what was on the disk at `NAME/first` and `NAME/second`, what the commands said in `NAME/*.txt`, and
their exit codes in codes-*.json.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch._dynamo
import torch.utils.tensorboard  # noqa: F401
from forks import train


@dataclass(frozen=True)
class Case:
    """A disk of so many KiB, read-only at first if `read_only`, which grows before the second start.

    A run that is not `fresh` has finished its first stage by then, on a large disk.
    """

    name: str
    size: int
    read_only: bool = False
    fresh: bool = True


def mount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)  # noqa: S603, S607


def start(folder: Path, disk: Path, case: Case, said: str) -> int:
    """Train on the disk; gives the exit code."""
    output = folder / case.name / f"{said}.txt"
    words = ["--cfg", str(folder / "recipe.yaml"), "--runs", str(disk), "--resume"]
    process = os.fork()
    if process == 0:
        train(words, str(output))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def go(folder: Path, case: Case) -> list[int]:
    """One case; gives the exit codes of its two starts."""
    disk, place = folder / case.name / "disk", folder / case.name
    disk.mkdir(parents=True)
    small = f"size={case.size}k" + (",ro" if case.read_only else "")
    try:
        mount(disk, small if case.fresh else "size=64m")
        if not case.fresh:
            shutil.copytree(folder / "begun", disk, dirs_exist_ok=True)
            mount(disk, f"remount,{small}")
        codes = [start(folder, disk, case, "first")]
        shutil.copytree(disk, place / "first")
        mount(disk, "remount,rw,size=64m")
        codes.append(start(folder, disk, case, "second"))
        shutil.copytree(disk, place / "second")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # noqa: S603, S607
    return codes


def main(folder: Path, jobs: int = 2) -> None:
    cases = [Case(**case) for case in json.loads((folder / "cases.json").read_text())]
    for number in range(jobs):
        if os.fork() == 0:
            codes = {case.name: go(folder, case) for case in cases[number::jobs]}
            (folder / f"codes-{number}.json").write_text(json.dumps(codes))
            os._exit(0)
    if any(os.wait()[1] for _ in range(jobs)):
        raise SystemExit("a case could not be tried")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
