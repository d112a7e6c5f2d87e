"""A disk that is full or read-only ends a run in one clear line, and the run goes on when there is room."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from forks import start
from killing import Kill, recipe, strike, write_recipe
from same_runs import differences
from small_disk import Case
from tiny import tiny_store

from ssl_skeleton.training.checkpoint import load_checkpoint

SEPARATE = ["unshare", "--map-root-user", "--mount"]
# Pages have 4 KiB: so the disk is full in turn at every file that a run writes before its first checkpoint.
FULL = [Case(f"{size}-kib", size) for size in (4, 8, 12, 20, 24, 200)]
BEGUN = [Case(f"begun-{left}-kib-left", left, fresh=False) for left in (4, 150)]
READ_ONLY = [Case("read-only", 99, read_only=True), Case("begun-read-only", 99, read_only=True, fresh=False)]
CASES = {case.name: case for case in (*FULL, *BEGUN, *READ_ONLY)}


@pytest.fixture(scope="module")
def disks(tmp_path_factory) -> Path:
    """The folder in which all cases were tried; beside them `whole/run`, which had room."""
    if shutil.which("unshare") is None or subprocess.run([*SEPARATE, "true"], check=False).returncode:  # noqa: S603
        pytest.skip("this system lets nobody have a disk of their own (unshare)")
    folder = tmp_path_factory.mktemp("disks")
    tree = recipe(tiny_store(folder / "store"), "cross_view", epochs=1, steps=None)
    cfg, said, begun = write_recipe(folder, tree), folder / "said.txt", folder / "begun"
    assert start(cfg, folder / "whole", said).code() == 0
    stop = Kill(signal.SIGTERM, "between", 0.0)
    assert strike(start(cfg, begun, said), begun / "run", stop, said, epochs=1).hit
    used = sum(-(-path.stat().st_size // 4096) * 4 for path in begun.rglob("*") if path.is_file())
    cases = [case if case.fresh else replace(case, size=case.size + used) for case in CASES.values()]
    (folder / "cases.json").write_text(json.dumps([asdict(case) for case in cases]))
    script = Path(__file__).parents[1] / "small_disk.py"
    path = os.pathsep.join(path for path in sys.path if path)
    subprocess.run(  # noqa: S603
        [*SEPARATE, sys.executable, script, folder], check=True, env=os.environ | {"PYTHONPATH": path}
    )
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_run_ends_in_one_line_and_goes_on_when_it_can(name, disks):
    every = {
        case: pair
        for path in disks.glob("codes-*.json")
        for case, pair in json.loads(path.read_text()).items()
    }
    codes, place = every[name], disks / name
    said = (place / "first.txt").read_text()
    (error,) = (line for line in said.splitlines() if "error" in line.lower())
    reason = os.strerror(errno.EROFS if CASES[name].read_only else errno.ENOSPC)
    assert re.match(rf"error: \S+: cannot be written \({reason}\)", error), said
    assert said.endswith(f"{error}\n")
    assert "Traceback" not in said
    assert codes == [2, 0], (place / "second.txt").read_text()
    for path in (place / "first").rglob("checkpoints/*.pt"):
        load_checkpoint(path, path.name.split("-")[0].removesuffix(".pt"))
    assert differences(place / "second" / "run", disks / "whole" / "run") == []
