"""Commands that torchrun starts: two processes that train one run, against one process."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loop_jobs
import pytest
import torch
import yaml
from ranked import Ranks
from tiny import recipe_tree, tiny_store

from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.checkpoint import load_checkpoint

# The command, on the rank and at the step that are named stopped by a signal.
SCRIPT = """
import os, signal, sys
from ssl_skeleton import pretrain
from ssl_skeleton.cli import run_command
from ssl_skeleton.training.step import Step

steps, make_step = [], Step.__call__

def counted(self, *words):
    steps.append(1)
    if (os.environ["RANK"], len(steps)) == ("1", 7):
        os.kill(os.getpid(), signal.SIGUSR1)
    return make_step(self, *words)

Step.__call__ = counted
sys.exit(run_command(pretrain.main, sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> dict[str, Any]:
    """A recipe with BatchNorm, dropout, a queue, a teacher, micro-batches, and a last batch of one clip."""
    store = tiny_store(tmp_path_factory.mktemp("stores") / "store")
    tree = recipe_tree(store, "fuse_joint", epochs=3)
    tree["encoder"] = {"name": "st_gcn", "width": 0.1, "depth": 0.1, "dropout": 0.3}
    tree["stages"][0]["training"] |= {"batch": 17}
    tree["stages"][1]["training"] |= {"batch": 8, "accumulate": 2, "clip_gradient": 1.0}
    return tree


@pytest.fixture(scope="module")
def alone(tree, tmp_path_factory) -> Run:
    """The run of one process."""
    run = Run.start(Recipe.from_tree(tree, "recipe"), tmp_path_factory.mktemp("runs") / "alone")
    run.pretrain()
    return run


def pretrain_on_two(*words: str | Path) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)  # noqa: S603


def write_recipe(tree: dict[str, Any], folder: Path) -> list[str]:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    return ["--cfg", str(folder / "recipe.yaml"), "--runs", str(folder)]


def log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        {name: line[name] for name in line.keys() - {"stage", "seconds", "clips_per_second"}}
        for line in lines
    ]


def assert_same_run(found: Path, expected: Path) -> None:
    """Equal to rounding."""
    assert len(log(found)) == len(log(expected)) == 4
    for one, other in zip(log(found), log(expected), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
    for stage in ("teacher", "main"):
        one, other = (
            load_checkpoint(folder / "checkpoints" / f"{stage}.pt", stage) for folder in (found, expected)
        )
        torch.testing.assert_close(one.pretext, other.pretext, rtol=1e-3, atol=1e-5)


def test_two_ranks_give_the_run_of_one(tree, alone, tmp_path):
    done = pretrain_on_two("-m", "ssl_skeleton.pretrain", *write_recipe(tree, tmp_path))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / tree["name"]
    lines = done.stdout.splitlines()
    assert lines[0] == f"{folder}: 18 clips of {tree['data']['store']} on cpu, 2 ranks"
    assert lines[-1] == f"{folder}: trained teacher, main"
    assert len(lines) == 6  # one for each of four epochs
    assert_same_run(folder, alone.folder)


def test_a_signal_to_one_rank_stops_both_and_one_goes_on(tree, alone, tmp_path):
    script = tmp_path / "stopped.py"
    script.write_text(SCRIPT)
    done = pretrain_on_two(script, *write_recipe(tree, tmp_path))
    folder = tmp_path / tree["name"]
    assert done.stderr.count("stopped at stage main, epoch 2, step 2; the state is saved") == 1
    assert "Traceback (most recent call last)" not in done.stderr.split("stopped at")[0]
    kept = load_checkpoint(folder / "checkpoints" / "main.pt", "main")
    assert (kept.epoch, kept.step) == (1, 2)
    run = Run.start(Recipe.from_tree(tree, "recipe"), folder, resume=True)
    assert run.pretrain() == ("main",)
    assert_same_run(folder, alone.folder)


def told(ranks_at_hand: Ranks, job: Callable[..., Any], *given: Any) -> str:
    """The one line that two ranks end with, both by a mistake of the user's."""
    answers = ranks_at_hand.apart(2, job, *given)
    ranks_at_hand.stop()  # as commands end their process after an error
    assert [code for code, _, _ in answers] == [2, 2]
    (line,) = (err for _, _, err in answers if err)
    assert len(line.splitlines()) == 1
    return line


def test_the_clips_to_blame_are_named_whichever_rank_has_them(tree, tmp_path, ranks_at_hand):
    words, folder = write_recipe(tree, tmp_path), tmp_path / tree["name"]
    step, first, last = 2, 0, 7  # of a batch of eight clips, which two ranks share
    line = told(ranks_at_hand, loop_jobs.pretrain_poisoned, words, step, [first, last])
    index = torch.load(folder / "checkpoints" / "main.not-finite.pt", weights_only=True)["index"]
    bad = ", ".join(f"clip{clip:02}" for clip in index[[first, last]].tolist())
    assert line.startswith("error: stage main, epoch 1, step 2: a loss is not finite (loss nan, ")
    assert f"; the views are not finite of {bad}; the state is in {folder}/checkpoints/main" in line


@pytest.mark.parametrize("time", [1, 3])  # of the teacher, of the last stage
def test_what_the_main_rank_alone_meets_ends_all(time, tree, tmp_path, ranks_at_hand):
    words = write_recipe(tree, tmp_path)
    assert told(ranks_at_hand, loop_jobs.pretrain_on_a_full_disk, words, time) == "error: the disk is full\n"
    again = told(ranks_at_hand, loop_jobs.pretrain, words)
    assert again.startswith(f"error: {tmp_path / tree['name']}: holds a run already; add --resume")
    answers = ranks_at_hand.apart(2, loop_jobs.pretrain, [*words, "--resume"])
    assert [code for code, _, _ in answers] == [0, 0]
