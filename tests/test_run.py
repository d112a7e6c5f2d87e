import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import recipe_tree, same, tiny_recipe, tiny_store

from ssl_skeleton.data.readers import READERS
from ssl_skeleton.errors import UserError
from ssl_skeleton.recipe import Recipe, load_recipe
from ssl_skeleton.run import Run
from ssl_skeleton.training.checkpoint import load_checkpoint, save_checkpoint

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Run:
    """A finished run of two stages."""
    run = Run.start(tiny_recipe(store, "fuse", epochs=1), tmp_path_factory.mktemp("runs") / "fuse")
    run.pretrain()
    return run


def reopened(run: Run, **changes) -> Run:
    """The run with other values in its recipe, as after a change by hand."""
    return Run(run.folder, run.recipe.model_copy(update=changes))


@pytest.mark.parametrize("evaluator", ["linear", "knn"])
def test_a_result_holds_all_that_is_promised(evaluator, run):
    result = run.evaluate(evaluator)
    path = run.folder / "eval" / f"{evaluator}-nw_ucla-cross_view.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    assert (result["evaluator"], result["store"], result["split"]) == (evaluator, "nw_ucla", "cross_view")
    assert (result["epoch"], result["seed"], result["clips"]) == (1, 0, {"train": 18, "test": 9})
    assert result["protocol"] == getattr(run.recipe.evaluation, evaluator).to_tree()
    assert result["baselines"].keys() == {"raw", "untrained"}
    own = {"evaluator", "store", "split", "protocol", "stages", "epoch", "seed", "clips", "baselines"}
    for scores in result["baselines"].values():
        assert scores.keys() == result.keys() - own
    assert 0 <= result["top1"] <= 1
    assert np.array(result["confusion"]).sum() == 9


def test_an_evaluation_is_repeatable(run):
    assert Run.open(run.folder).evaluate("linear") == run.evaluate("linear")


def test_the_untrained_baseline_is_the_start_of_the_run(run):
    stage = run.recipe.stages[-1]
    start, again = run.build_encoder(stage).state_dict(), run.build_pretext(stage).encoder.state_dict()
    assert same(start, again)
    assert not same(start, run.trained_encoder(stage).state_dict())


def test_the_baselines_know_nothing_of_the_checkpoint(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    path = folder / "checkpoints" / "main.pt"
    blank = load_checkpoint(path)
    for name, tensor in blank.pretext.items():
        if name.startswith("encoder.gru"):
            tensor.zero_()
    save_checkpoint(path, blank)
    before, after = run.evaluate("linear"), Run.open(folder).evaluate("linear")
    assert after["baselines"] == before["baselines"]
    answers = np.array(after["confusion"]).sum(axis=0)
    assert sorted(answers) == [0, 0, 9]  # every clip looks the same to an encoder of zeros
    untrained = np.array(after["baselines"]["untrained"]["confusion"]).sum(axis=0)
    assert (untrained > 0).sum() > 1


def test_the_teacher_is_the_trained_earlier_stage(run):
    teacher, student = run.recipe.stages
    trained = run.trained_encoder(teacher).state_dict()
    assert same(trained, run.build_pretext(student).teacher.state_dict())
    kept = load_checkpoint(run.folder / "checkpoints" / "main.pt").pretext
    assert all(torch.equal(kept[f"teacher.{name}"], tensor) for name, tensor in trained.items())


def test_the_evaluated_encoder_is_that_of_the_checkpoint(run):
    kept = load_checkpoint(run.folder / "checkpoints" / "main.pt").pretext
    for name, tensor in run.trained_encoder(run.recipe.stages[-1]).state_dict().items():
        assert torch.equal(tensor, kept[f"encoder.{name}"])


def test_pretraining_reads_no_label_and_no_test_clip(run, tmp_path):
    again = Run.start(run.recipe, tmp_path / "run")
    again.packed.labels.fill_(-1)
    for clip, first, _, frames in again.store.tracks:
        if clip in again.split.test:
            again.packed.frames_rvc[first : first + frames] = torch.nan
    again.pretrain()
    for stage in ("teacher", "main"):
        path = Path("checkpoints") / f"{stage}.pt"
        assert same(vars(load_checkpoint(run.folder / path)), vars(load_checkpoint(again.folder / path)))


def test_the_folder_of_a_new_run(store, tmp_path):
    recipe = tiny_recipe(store)
    run = Run.start(recipe, tmp_path / "runs" / "new")
    assert Recipe.from_tree(yaml.safe_load((run.folder / "recipe.yaml").read_text()), "kept") == recipe
    environment = json.loads((run.folder / "environment.json").read_text())
    assert {"ssl_skeleton", "torch", "python", "device", "revision"} <= environment.keys()
    assert Run.open(run.folder).recipe == recipe


def test_evaluation_may_change_the_protocol_only(run):
    assert Run.open(run.folder, ["evaluation.knn.k=[2]"]).recipe.evaluation.knn.k == (2,)
    for override in ("seed=1", "data.frames=3", "data.stores=x", "encoder.hidden=4"):
        with pytest.raises(UserError, match=r"only evaluation\., device=, data.store= can change"):
            Run.open(run.folder, [override])


def test_a_folder_that_is_in_use(run, tmp_path):
    with pytest.raises(UserError, match="holds a run already; add --resume"):
        Run.start(run.recipe, run.folder)
    with pytest.raises(UserError, match=r"holds another recipe \(seed is 0 there, 1 here\)"):
        Run.start(run.recipe.model_copy(update={"seed": 1}), run.folder, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        Run.start(run.recipe, tmp_path / "other")
    with pytest.raises(UserError, match=r"notes.txt: cannot be written"):
        Run.start(run.recipe, tmp_path / "other" / "notes.txt")
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


def test_a_bad_store_leaves_no_folder(store, tmp_path):
    tree = recipe_tree(store)
    for data in ({"split": "cross_vew"}, {"store": str(tmp_path)}):
        recipe = Recipe.from_tree(tree | {"data": tree["data"] | data}, "recipe")
        with pytest.raises(UserError):
            Run.start(recipe, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_stage_that_is_not_finished_is_not_evaluated(run, store, tmp_path):
    fresh = Run.start(tiny_recipe(store), tmp_path / "run")
    with pytest.raises(UserError, match=r"main.pt: no such checkpoint; train with"):
        fresh.evaluate("knn")
    teacher, student = run.recipe.stages
    longer = student.model_copy(update={"training": student.training.model_copy(update={"epochs": 9})})
    with pytest.raises(UserError, match=r"main.pt: stands at epoch 1 of 9; go on with --resume"):
        reopened(run, stages=(teacher, longer)).evaluate("knn")


def test_another_architecture_is_refused(run):
    wider = reopened(run, encoder=run.recipe.encoder.model_copy(update={"hidden": 9}))
    with pytest.raises(UserError, match="of another architecture than the recipe's"):
        wider.evaluate("knn")


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_shipped_recipes_run(path, tmp_path):
    stages = len(load_recipe(path).stages)
    dataset = Path(load_recipe(path).data.store).name
    assert dataset in READERS
    store = tiny_store(tmp_path / "store", dataset)
    small = ["device=cpu", f"data.store={store}", "encoder.hidden=4", "evaluation.linear.epochs=2"]
    short = [f"stages.{stage}.training.epochs=1" for stage in range(stages)]
    run = Run.start(load_recipe(path, [*small, *short]), tmp_path / "run")
    run.pretrain()
    assert 0 <= run.evaluate("linear")["top1"] <= 1
