"""What docs/training.md tells people to type, typed; and what it says that options are called."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
from tiny import tiny_store

from ssl_skeleton.cli import run_command
from ssl_skeleton.data.frames import Residence
from ssl_skeleton.pretrain import main
from ssl_skeleton.training.checkpoint import load_checkpoint
from ssl_skeleton.training.config import Precision, TrainingConfig
from ssl_skeleton.watching import WatchConfig

TEXT = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
SMALL = ["encoder.hidden=8", "encoder.layers=1", "stages.0.training.epochs=1", "stages.1.training.epochs=1"]
PRETRAIN = "python -m ssl_skeleton.pretrain "
# Starts every task in the background, passes the warning on to them, and ends with the highest code.
SRUN = """#!/bin/bash
echo $$ > srun.pid
for ((n = 0; n < SLURM_NTASKS; n++)); do SLURM_PROCID=$n SLURM_LOCALID=$n "$@" & pids+=($!); done
trap 'kill -USR1 ${pids[@]}' USR1
for pid in ${pids[@]}; do
  while wait $pid; code=$?; kill -0 $pid 2> /dev/null; do :; done
  ((code > worst)) && worst=$code
done
exit ${worst:-0}
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && echo localhost || echo "$@" > requeued
"""


def keys(section: str) -> set[str]:
    """The keys that the first column of a section's first table names."""
    table = re.search(r"^\|.*?(?=^$)", TEXT.partition(section)[2], re.MULTILINE | re.DOTALL)
    first = [row.split("|")[1] for row in table[0].splitlines()[2:]]
    return {key for cell in first for key in re.findall(r"`(\w+)`", cell)}


def test_tables_name_every_key():
    assert keys("## How a stage trains") == set(TrainingConfig.model_fields)
    assert keys("The section `watch`") == set(WatchConfig.model_fields)
    assert keys("### Where the frames are") == set(get_args(Residence))
    precisions = re.search(r"^\| `precision` \|.*$", TEXT, re.MULTILINE)[0]
    assert set(get_args(Precision)) <= set(re.findall(r"`(\w+)`", precisions))


def test_commands_work(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_store(Path("data/nw_ucla"))
    blocks = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(PRETRAIN)]
    assert len(lines) > 3
    for line in lines:
        words = shlex.split(line.removeprefix(PRETRAIN), comments=True)
        assert run_command(main, [*words, *SMALL]) == 0, capsys.readouterr().err
    printed = capsys.readouterr()
    assert "nothing was left to do" in printed.out
    assert not printed.err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no bash")
def test_the_job_saves_when_it_is_warned_and_queues_anew(tmp_path):
    tiny_store(tmp_path / "data" / "nw_ucla")
    (script,) = re.findall(r"^```sh train.sbatch\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert "#SBATCH --signal=USR1@" in script
    config = re.search(r"--cfg (\S+)", script)[1]
    small = ["name=job", *SMALL[:2], "stages.0.training.batch=4", "stages.0.training.epochs=5000"]
    script = script.replace(f"{config} ", f"configs/crrl_nw_ucla.yaml {' '.join(small)} ")
    script = script.replace("python", shlex.quote(sys.executable))
    (tmp_path / "train.sbatch").write_text(script, encoding="utf-8")
    for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "here", "OMP_NUM_THREADS": "1"}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    with (tmp_path / "said").open("w") as said:
        job = subprocess.Popen(
            ["bash", "train.sbatch"],  # noqa: S607
            cwd=tmp_path,
            env=os.environ | slurm | {"PATH": path},
            stdout=said,
            stderr=said,
        )
        checkpoint = tmp_path / "runs" / "job" / "checkpoints" / "reconstruct.pt"
        until = time.monotonic() + 90
        while not (tmp_path / "runs" / "job" / "log.jsonl").exists():
            assert job.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < until, (tmp_path / "said").read_text()
            time.sleep(0.1)
        os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGUSR1)
        code = job.wait(60)
    assert code == 128 + signal.SIGUSR1, (tmp_path / "said").read_text()
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    assert load_checkpoint(checkpoint, "reconstruct").epoch > 0
