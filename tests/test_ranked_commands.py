"""Commands that torchrun starts on several ranks do what one process does."""

import json
import shutil
import subprocess
import sys

import pytest
import ranked_jobs
import torch
import yaml
from tiny import recipe_tree, tiny_store

from ssl_skeleton import knn, linear, pretrain
from ssl_skeleton.cli import run_command
from ssl_skeleton.training.checkpoint import load_checkpoint

EPOCHS = 2
GONE = "error: a rank is gone, and the others cannot go on without it; go on with --resume\n"
GRAPH = {"name": "st_gcn", "width": 0.125, "depth": 0.25}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A store, a recipe, and what one process makes of it in `alone/fuse`."""
    house = tmp_path_factory.mktemp("house")
    tiny_store(house / "store")
    for name, encoder in (("fuse", {}), ("graph", {"encoder": GRAPH})):
        tree = recipe_tree(house / "store", "fuse", EPOCHS) | {"name": name} | encoder
        (house / f"{name}.yaml").write_text(yaml.safe_dump(tree))
        assert run_command(pretrain.main, pretrain_words(house, name, "alone")) == 0
    return house


def pretrain_words(house, name, runs):
    return ["--cfg", str(house / f"{name}.yaml"), "--runs", str(house / runs)]


def assert_trained_alike(found, expected):
    """Two run folders hold the same weights, and the same log but for the clock's."""
    for stage in ("teacher", "main"):
        states = [load_checkpoint(run / "checkpoints" / f"{stage}.pt", stage) for run in (found, expected)]
        (one, other) = (state.pretext for state in states)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    logs = [(run / "log.jsonl").read_text().splitlines() for run in (found, expected)]
    assert len(logs[0]) == len(logs[1]) == 1 + EPOCHS
    for one, other in zip(*logs, strict=True):
        values, wanted = json.loads(one), json.loads(other)
        for key in wanted.keys() - {"seconds", "clips_per_second", "stage"}:
            assert values[key] == pytest.approx(wanted[key], rel=1e-4, abs=1e-6), key


@pytest.mark.parametrize(("name", "world"), [("fuse", 2), ("graph", 3)])
def test_several_ranks_train_what_one_does(name, world, house, ranks_at_hand):
    words = pretrain_words(house, name, f"{world}-ranks")
    found = ranks_at_hand.apart(world, ranked_jobs.command, "pretrain", *words)
    assert [(code, err) for code, _, err in found] == [(0, "")] * world
    assert f"18 clips of {house / 'store'} on cpu, {world} ranks\n" in found[0][1]
    assert [out for _, out, _ in found[1:]] == [""] * (world - 1)
    assert_trained_alike(house / f"{world}-ranks" / name, house / "alone" / name)


def test_when_a_rank_dies_another_number_goes_on_from_the_last_checkpoint(house, ranks_at_hand):
    words = pretrain_words(house, "fuse", "hurt")
    job = ranked_jobs.command_in_which_rank_1_dies  # the teacher makes 5 steps, and an epoch has as many
    (code, out, err), _ = ranks_at_hand.apart(2, job, 12, "pretrain", *words, dies=1)
    assert (code, err) == (2, GONE)
    assert "main 1/2" in out
    assert load_checkpoint(house / "hurt" / "fuse" / "checkpoints" / "main.pt", "main").epoch == 1
    found = ranks_at_hand.apart(3, ranked_jobs.command, "pretrain", *words, "--resume")
    assert [code for code, _, _ in found] == [0, 0, 0]
    assert_trained_alike(house / "hurt" / "fuse", house / "alone" / "fuse")


def test_several_ranks_go_on_with_another_recipe(house, ranks_at_hand, tmp_path):
    shutil.copytree(house / "alone" / "graph", tmp_path / "graph")
    more = ["stages.1.training.epochs=3", "--resume-anyway"]
    words = ["--cfg", str(house / "graph.yaml"), "--runs", str(tmp_path), *more]
    found = ranks_at_hand.apart(2, ranked_jobs.command, "pretrain", *words)
    assert [(code, err) for code, _, err in found] == [(0, "")] * 2
    assert "goes on with another recipe: stages.1.training.epochs is 2 there, 3 here" in found[0][1]
    assert load_checkpoint(tmp_path / "graph" / "checkpoints" / "main.pt", "main").epoch == 3


@pytest.mark.parametrize("evaluator", [linear, knn])
def test_several_ranks_score_as_one_does(evaluator, house, ranks_at_hand, tmp_path, capsys):
    verb = evaluator.__name__.removeprefix("ssl_skeleton.")
    shutil.copytree(house / "alone" / "fuse", tmp_path / "fuse")
    result = tmp_path / "fuse" / "eval" / f"{verb}-store-cross_view.json"
    assert run_command(evaluator.main, ["--run", str(tmp_path / "fuse")]) == 0
    alone, table = json.loads(result.read_text()), capsys.readouterr().out
    result.unlink()
    found = ranks_at_hand.apart(2, ranked_jobs.command, verb, "--run", str(tmp_path / "fuse"))
    assert found == [(0, table, ""), (0, "", "")]
    assert json.loads(result.read_text()) == alone


def test_torchrun_itself(house):
    """A mistake that all ranks make, since that is over soonest; torchrun adds its own lines."""
    words = [*pretrain_words(house, "fuse", "alone"), "stages.0.training.batch=none"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    found = subprocess.run(  # noqa: S603
        [sys.executable, *torchrun, "ssl_skeleton.pretrain", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode != 0
    lines = [line for line in found.stderr.splitlines() if line.startswith(("error:", "rank "))]
    assert lines == [
        "error: 'stages.0.training.batch=none': stages.0.training.batch: input should be a valid integer, "
        "not 'none'"
    ]
