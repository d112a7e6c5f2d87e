import itertools
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny import recipe_tree, same, tiny_recipe, tiny_store

from ssl_skeleton import pretrain
from ssl_skeleton.cli import run_command
from ssl_skeleton.config import apply_overrides
from ssl_skeleton.errors import Stopped, UserError
from ssl_skeleton.files import locked
from ssl_skeleton.pretext.base import Pretext
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.checkpoint import Checkpoint, Checkpoints, load_checkpoint

EPOCHS, STEPS = 4, 5  # 18 clips in batches of 4


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


def stopped_at(recipe: Recipe, folder: Path, step: int) -> Run:
    """A run that a signal stopped after so many steps."""
    run, forward, steps = Run.start(recipe, folder), Pretext.forward, itertools.count(1)

    def counted(self, views):
        if next(steps) == step:
            signal.raise_signal(signal.SIGTERM)
        return forward(self, views)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretext, "forward", counted)
        with pytest.raises(Stopped):
            run.pretrain()
    return run


@pytest.fixture(scope="module")
def half(store, tmp_path_factory) -> Run:
    """A run of two stages, stopped after three steps in the second epoch of the last stage."""
    folder = tmp_path_factory.mktemp("runs") / "half"
    return stopped_at(tiny_recipe(store, "fuse"), folder, STEPS + STEPS + 3)


@pytest.fixture
def run(half, tmp_path) -> Run:
    """A copy of it."""
    shutil.copytree(half.folder, tmp_path / "run")
    return Run(tmp_path / "run", half.recipe)


def changed(recipe: Recipe, *overrides: str) -> Recipe:
    return Recipe.from_tree(apply_overrides(recipe.to_tree(), overrides), "recipe")


def checkpoint(run: Run, stage: str = "main") -> Checkpoint:
    return load_checkpoint(run.folder / "checkpoints" / f"{stage}.pt", stage)


def go_on_anyway(run: Run, *overrides: str) -> tuple[Run, list[str]]:
    """The run with another recipe, and what was told."""
    told: list[str] = []
    return Run.start(changed(run.recipe, *overrides), run.folder, resume_anyway=True, tell=told.append), told


def test_another_way_to_the_same_store_is_no_other_recipe(store, run):
    around = str(store.parent / ".." / store.parent.name / store.name)
    Run.start(changed(run.recipe, f"data.store={around}"), run.folder, resume=True)
    kept = run.folder / "recipe.yaml"  # as one that was written before paths were made plain
    kept.write_text(yaml.safe_dump(changed(run.recipe, f"data.store={around}").to_tree()))
    Run.start(run.recipe, run.folder, resume=True)


def test_another_recipe_needs_to_be_asked_for(run):
    other = changed(run.recipe, "stages.1.training.optimiser.lr=0.5")
    message = r"lr is 0\.01 there, 0\.5 here\); repeat .* --resume-anyway"
    with pytest.raises(UserError, match=message):
        Run.start(other, run.folder, resume=True)
    with pytest.raises(UserError, match="holds a run already; add --resume"):
        Run.start(run.recipe, run.folder)


def test_another_recipe_takes_over_and_the_first_is_kept(run):
    kept = (run.folder / "recipe.yaml").read_text()
    again, told = go_on_anyway(run, "stages.1.training.optimiser.lr=0.5", "stages.1.training.epochs=3")
    where = f"{run.folder}: "
    assert told == [
        where + "goes on with another recipe: stages.1.training.epochs is 4 there, 3 here",
        where + "goes on with another recipe: stages.1.training.optimiser.lr is 0.01 there, 0.5 here",
        "stage teacher: is trained already, and stays as it is",
        where + "the recipe until here is kept as recipe.1.yaml",
    ]
    assert (run.folder / "recipe.1.yaml").read_text() == kept
    assert Run.open(run.folder).recipe == again.recipe
    assert (checkpoint(run).epoch, checkpoint(run).step) == (1, 3)
    assert again.pretrain() == ("main",)
    assert checkpoint(run).epoch == 3
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["stage"] == "main"] == [1, 2, 3]
    assert lines[-1]["lr"] == pytest.approx(again.recipe.stages[1].training.rate(2 + 16 / 18))


def test_recipes_are_counted_on(run):
    (run.folder / "recipe.3.yaml").write_text("mine")
    for rate in (0.1, 0.2, 0.3):
        go_on_anyway(run, f"stages.1.training.optimiser.lr={rate}")
    trees = [yaml.safe_load((run.folder / f"recipe.{number}.yaml").read_text()) for number in (1, 2, 4)]
    assert [tree["stages"][1]["training"]["optimiser"]["lr"] for tree in trees] == [0.01, 0.1, 0.2]
    assert (run.folder / "recipe.3.yaml").read_text() == "mine"


def test_the_same_recipe_goes_on_as_ever(run, store, tmp_path):
    again, told = go_on_anyway(run, "device=auto", "watch.health=0")
    assert told == []
    assert not list(run.folder.glob("recipe.*.yaml"))
    whole = Run.start(run.recipe, tmp_path / "whole")
    whole.pretrain()
    again.pretrain()
    assert same(vars(checkpoint(again)), vars(checkpoint(whole)))


def test_what_is_kept_may_change_freely(run):
    keys = {"checkpoint_every": 3, "checkpoint_steps": 4, "keep": 2, "keep_best": "true"}
    other = changed(run.recipe, *(f"stages.1.training.{key}={value}" for key, value in keys.items()))
    again, saved = Run.start(other, run.folder, resume=True), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Checkpoints, "_check_finite", lambda self, found: saved.append((found.epoch, found.step))
        )
        again.pretrain()
    assert saved == [(2, 2), (3, 0), (3, 1), (4, 0)]  # steps 12 and 16, epochs 3 and 4
    names = {path.name for path in (run.folder / "checkpoints").iterdir()}
    assert names - {"teacher.pt"} == {"main.pt", "main-best.pt", "main-epoch-0003.pt", "main-epoch-0004.pt"}


def test_a_store_that_was_prepared_again_is_noticed(store, tmp_path):
    mine = tmp_path / "store"
    shutil.copytree(store, mine)
    run = stopped_at(tiny_recipe(mine), tmp_path / "run", STEPS + 2)
    shutil.rmtree(mine)
    tiny_store(mine, bodies=2)
    again = Run.open(run.folder).recipe
    with pytest.raises(UserError, match=rf"^{mine}: was prepared again .* --resume-anyway$"):
        Run.start(again, run.folder, resume=True)
    _, told = go_on_anyway(run)
    assert told[:2] == [
        f"{run.folder}: goes on with another content of {mine}",
        "stage main: epoch 2 begins anew, in other batches",
    ]
    assert Run.start(again, run.folder, resume=True).pretrain() == ("main",)


@pytest.mark.parametrize("noted", ["[]", '{"stores": 3}', '{"stores": {}}', None])
def test_a_run_that_notes_nothing_of_its_stores_goes_on(noted, run):
    environment = run.folder / "environment.json"
    environment.write_text(noted) if noted else environment.unlink()
    assert Run.start(run.recipe, run.folder, resume=True).pretrain() == ("main",)


@pytest.mark.parametrize(
    "override", ["stages.1.training.batch=6", "seed=3", "data.split=cross_view_dev", "data.balance=balanced"]
)
def test_an_epoch_in_other_batches_begins_anew(override, run):
    before = checkpoint(run)
    again, told = go_on_anyway(run, override)
    assert "stage main: epoch 2 begins anew, in other batches" in told
    after = checkpoint(run)
    assert (after.epoch, after.step, after.totals) == (1, 0, {})
    assert same((after.pretext, after.optimiser), (before.pretext, before.optimiser))
    assert again.pretrain() == ("main",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder.hidden=9", r"main\.pt|teacher\.pt"),
        (
            "stages.1.training.optimiser={name: adamw}",
            "main.pt: of another optimiser than the recipe's, adamw",
        ),
        ("data.layout=common_15", "its encoders learn from another body"),
        ("data.split=cross_vew", "did you mean 'cross_view'"),
        ("data.bodies=2", "data.bodies: 2, but no clip"),
    ],
)
def test_what_a_run_cannot_go_on_with_changes_nothing(override, message, run):
    files = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=message) as error:
        go_on_anyway(run, override)
    assert "\n" not in str(error.value)
    assert files == {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def test_another_precision_goes_on(run):
    again, _ = go_on_anyway(run, "stages.1.training.precision=fp16", "stages.1.training.accumulate=2")
    again.pretrain()
    assert checkpoint(run).scaler


def test_what_began_with_an_older_version_goes_on(run):
    """The recipe kept then lacks what was added since, which has defaults that change nothing."""
    tree = yaml.safe_load((run.folder / "recipe.yaml").read_text())
    del tree["watch"], tree["data"]["residence"]
    for stage in tree["stages"]:
        for key in (
            "precision",
            "compile",
            "accumulate",
            "lr_of_batch",
            "checkpoint_steps",
            "keep",
            "keep_best",
        ):
            del stage["training"][key]
    (run.folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    assert Run.start(run.recipe, run.folder, resume=True).pretrain() == ("main",)


def test_a_finished_run_has_nothing_left(run):
    assert run.pretrain() == ("main",)
    assert Run.start(run.recipe, run.folder, resume=True).pretrain() == ()
    assert Run.start(run.recipe, run.folder, resume_anyway=True).pretrain() == ()


def test_the_command_says_what_goes_on_and_when_nothing_is_left(run, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(run.recipe.to_tree() | {"name": "run"}))
    words = ["--cfg", str(recipe), "--runs", str(tmp_path), "name=run"]
    assert run_command(pretrain.main, [*words, "stages.1.training.epochs=2", "--resume"]) == 2
    assert "--resume-anyway" in capsys.readouterr().err
    assert run_command(pretrain.main, [*words, "stages.1.training.epochs=2", "--resume-anyway"]) == 0
    told = capsys.readouterr().out
    assert "goes on with another recipe: stages.1.training.epochs is 4 there, 2 here\n" in told
    assert told.endswith(f"{run.folder}: trained main\n")
    assert run_command(pretrain.main, [*words, "stages.1.training.epochs=2", "--resume"]) == 0
    assert capsys.readouterr().out.endswith(f"{run.folder}: is trained already; nothing was left to do\n")


def test_nobody_else_writes_a_run_that_is_trained(run):
    with locked(run.folder):
        with pytest.raises(UserError, match=r"another process.* is writing it"):
            run.pretrain()
        with pytest.raises(UserError, match=r"another process.* is writing it"):
            go_on_anyway(run, "stages.1.training.epochs=3")
    assert checkpoint(run).step == 3
    run.pretrain()


def test_a_start_that_was_broken_off_is_no_hindrance(store, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "body.json").write_text("{}")
    (folder / ".lock").touch()
    (folder / ".recipe.yaml.abcdefgh.tmp").touch()
    run = Run.start(tiny_recipe(store, epochs=1), folder)
    assert json.loads((folder / "body.json").read_text()) == json.loads(json.dumps(run.body.to_tree()))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".mine").touch()
    with pytest.raises(UserError, match="is not empty and holds no run"):
        Run.start(run.recipe, tmp_path / "other")


def test_a_precision_that_torch_cannot_leaves_no_folder(store, tmp_path, monkeypatch):
    tree = recipe_tree(store)
    tree["stages"][0]["training"]["precision"] = "fp16"

    def refused(*words):
        raise RuntimeError("\"addmm\" not implemented for 'Half'\nmore")

    monkeypatch.setattr("ssl_skeleton.runs.run.autocast", refused)
    with pytest.raises(UserError, match=r"stage main: cannot encode in fp16 here .*'Half'"):
        Run.start(Recipe.from_tree(tree, "recipe"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_clips_are_named_as_their_stores_name_them(store, tmp_path):
    run = Run.start(tiny_recipe(store), tmp_path / "run")
    assert run.clip_names(torch.tensor([3, 0])) == [run.store.names[3], run.store.names[0]]
    copy = shutil.copytree(store, tmp_path / "copy")
    both = {"store": [str(store), str(copy)], "split": "cross_view", "frames": 6}
    two = Run.start(tiny_recipe(store, data=both), tmp_path / "two")
    assert two.clip_names(torch.tensor([1, len(run.store)])) == ["store/clip01", "copy/clip00"]


def test_a_signal_while_a_command_loads_ends_it_cleanly(store, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(recipe_tree(store)))
    script = (
        "import os, signal, sys\n"
        "from ssl_skeleton import pretrain\n"
        "from ssl_skeleton.cli import run_command\n"
        "from ssl_skeleton.runs.run import Run\n"
        f"Run._check = lambda run: os.kill(os.getpid(), {int(signal.SIGUSR1)})\n"
        "sys.exit(run_command(pretrain.main, sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", script, "--cfg", str(recipe), "--runs", str(tmp_path / "runs")]
    found = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    assert found.returncode == 128 + signal.SIGUSR1
    assert found.stderr.startswith("stopped at loading; there was nothing to save; go on with --resume")
    assert len(found.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
