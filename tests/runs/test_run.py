import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import put_checkpoint, recipe_tree, same, tiny_recipe, tiny_store, unevaluated

from ssl_skeleton.data.readers import FORMATS
from ssl_skeleton.data.recording import IMAGE, METRES
from ssl_skeleton.data.repair import RepairConfig
from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import labels_of_test, raw_encoding, split_features
from ssl_skeleton.evaluation.knn import knn_probe
from ssl_skeleton.recipe import Recipe, load_recipe
from ssl_skeleton.runs import probing
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.checkpoint import load_checkpoint

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


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
    result = evaluate(run, evaluator)
    path = run.folder / "eval" / f"{evaluator}-store-cross_view.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    assert (result["evaluator"], result["store"], result["split"]) == (evaluator, "store", "cross_view")
    assert (result["epoch"], result["seed"], result["clips"]) == (1, 0, {"train": 18, "test": 9})
    assert result["protocol"] == getattr(run.recipe.evaluation, evaluator).to_tree()
    assert (result["store_path"], result["layout"]) == (run.recipe.data.store, "kinect_v1_20")
    assert result["repair"] == RepairConfig().to_tree()
    assert result["streams"] == ["joint"]
    assert result["baselines"].keys() == {"raw", "untrained"}
    assert ("rate" in result) is (evaluator == "linear")
    own = {
        "evaluator",
        "store",
        "store_path",
        "store_sum",
        "changed",
        "overridden",
        "split",
        "layout",
        "repair",
        "protocol",
        "stages",
        "streams",
        "epoch",
        "seed",
        "clips",
        "baselines",
    }
    for scores in result["baselines"].values():
        assert scores.keys() == result.keys() - own
    assert 0 <= result["top1"] <= 1
    assert np.array(result["confusion"]).sum() == 9


def with_input(store: Path, streams: list[str], **data) -> Recipe:
    tree = recipe_tree(store, epochs=1)
    seen = {"input": {"streams": streams}, "key": {"streams": ["motion", "joint"][: len(streams)]}}
    tree["stages"][0]["pretext"] = tree["stages"][0]["pretext"] | seen
    return Recipe.from_tree(tree | {"data": tree["data"] | data}, "recipe")


@pytest.mark.parametrize("streams", [["joint", "motion"], ["bone"]])
def test_other_streams_have_a_raw_baseline_of_their_own(streams, store, tmp_path):
    run = Run.start(with_input(store, streams), tmp_path / "run")
    run.pretrain()
    result = evaluate(run, "knn")
    assert result["streams"] == streams
    assert result["baselines"].keys() == {"raw", "raw_streams", "untrained"}
    for name, view in (("raw", ViewConfig()), ("raw_streams", ViewConfig(streams=tuple(streams)))):
        raw = split_features(run.packed, run.splits[0], raw_encoding(run.packed, run.recipe.data, view))
        answers = knn_probe(raw, 3, run.recipe.evaluation.knn)
        expected = answers(labels_of_test(run.packed, run.splits[0]))
        assert result["baselines"][name] == expected


def test_the_raw_baseline_knows_nothing_of_the_recipes_frames(run, store, tmp_path):
    other = Run.start(with_input(store, ["joint"], frames=9), tmp_path / "run")
    other.pretrain()
    assert evaluate(other, "knn")["baselines"]["raw"] == evaluate(run, "knn")["baselines"]["raw"]


def test_a_run_is_evaluated_from_another_working_directory(store, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    shutil.copytree(store, tmp_path / "here" / "data")
    monkeypatch.chdir(tmp_path / "here")
    run = Run.start(tiny_recipe(Path("data"), epochs=1), Path("runs") / "run")
    run.pretrain()
    before = evaluate(run, "linear")
    assert (tmp_path / "here/runs/run/eval/linear-data-cross_view.json").is_file()
    monkeypatch.chdir(tmp_path / "there")
    assert evaluate(Run.open(Path("../here/runs/run")), "linear") == before


def test_results_of_several_splits_and_stores_lie_side_by_side(run, store, tmp_path):
    folder, other, same = tmp_path / "run", tmp_path / "other", tmp_path / "copy" / store.name
    unevaluated(run.folder, folder)
    shutil.copytree(store, other)
    shutil.copytree(store, same)
    for overrides in ([], ["data.split=cross_view_dev"], [f"data.store={other}"]):
        evaluate(Run.open(folder, overrides), "knn")
    before = {path.name: path.read_bytes() for path in (folder / "eval").iterdir()}
    again = evaluate(Run.open(folder, [f"data.store={same}"]), "knn")
    assert all((folder / "eval" / name).read_bytes() == text for name, text in before.items())
    (added,) = {path.name for path in (folder / "eval").iterdir()} - before.keys()
    assert added.startswith("knn-store-cross_view-")
    assert json.loads((folder / "eval" / added).read_text())["store_path"] == again["store_path"] == str(same)
    assert before.keys() == {
        "knn-store-cross_view.json",
        "knn-store-cross_view_dev.json",
        "knn-other-cross_view.json",
    }


def test_the_untrained_baseline_is_calibrated_and_the_trained_encoder_is_not(run, monkeypatch):
    given = []
    monkeypatch.setattr(probing, "calibrate_norms", lambda *words: given.append(words[-1].encoder))
    evaluate(run, "knn")
    (encoder,) = given
    start = run.build_encoder(run.recipe.stages[-1]).state_dict()
    assert same(encoder.state_dict(), start)


def test_a_run_goes_on_on_another_device(run):
    elsewhere = run.recipe.model_copy(update={"device": "auto"})
    assert Run.start(elsewhere, run.folder, resume=True).recipe.device == "auto"


def test_an_evaluation_is_repeatable(run):
    assert evaluate(Run.open(run.folder), "linear") == evaluate(run, "linear")


def test_the_untrained_baseline_is_the_start_of_the_run(run):
    stage = run.recipe.stages[-1]
    start, again = run.build_encoder(stage).state_dict(), run.build_pretext(stage).encoder.state_dict()
    assert same(start, again)
    assert not same(start, run.trained_encoder(stage).state_dict())


def test_the_baselines_know_nothing_of_the_checkpoint(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    path = folder / "checkpoints" / "main.pt"
    blank = load_checkpoint(path, "main")
    for name, tensor in blank.pretext.items():
        if name.startswith("encoder.gru"):
            tensor.zero_()
    put_checkpoint(path, blank)
    before, after = evaluate(run, "linear"), evaluate(Run.open(folder), "linear")
    assert after["baselines"] == before["baselines"]
    answers = np.array(after["confusion"]).sum(axis=0)
    assert sorted(answers) == [0, 0, 9]  # every clip looks the same to an encoder of zeros
    untrained = np.array(after["baselines"]["untrained"]["confusion"]).sum(axis=0)
    assert (untrained > 0).sum() > 1


def test_the_teacher_is_the_trained_earlier_stage(run):
    teacher, student = run.recipe.stages
    trained = run.trained_encoder(teacher).state_dict()
    assert same(trained, run.build_pretext(student).teacher.state_dict())
    kept = load_checkpoint(run.folder / "checkpoints" / "main.pt", "main").pretext
    assert all(torch.equal(kept[f"teacher.{name}"], tensor) for name, tensor in trained.items())


def test_the_evaluated_encoder_is_that_of_the_checkpoint(run):
    kept = load_checkpoint(run.folder / "checkpoints" / "main.pt", "main").pretext
    for name, tensor in run.trained_encoder(run.recipe.stages[-1]).state_dict().items():
        assert torch.equal(tensor, kept[f"encoder.{name}"])


def test_pretraining_reads_no_label_and_no_test_clip(run, tmp_path):
    again = Run.start(run.recipe, tmp_path / "run")
    again.packed.labels.fill_(-1)
    for clip, first, _, frames in again.store.tracks:
        if clip in again.splits[0].test:
            again.packed.frames.x_rvc[first : first + frames] = torch.nan
    again.pretrain()
    for stage in ("teacher", "main"):
        path = Path("checkpoints") / f"{stage}.pt"
        assert same(
            vars(load_checkpoint(run.folder / path, stage)), vars(load_checkpoint(again.folder / path, stage))
        )


def test_the_folder_of_a_new_run(store, tmp_path):
    recipe = tiny_recipe(store)
    run = Run.start(recipe, tmp_path / "runs" / "new")
    assert Path(recipe.data.store).is_absolute()
    assert Recipe.from_tree(yaml.safe_load((run.folder / "recipe.yaml").read_text()), "kept") == recipe
    environment = json.loads((run.folder / "environment.json").read_text())
    assert {"ssl_skeleton", "torch", "python", "device", "revision"} <= environment.keys()
    assert Run.open(run.folder).recipe == recipe


def test_evaluation_may_change_the_protocol_and_the_representation_only(run):
    assert Run.open(run.folder, ["evaluation.knn.k=[2]"]).recipe.evaluation.knn.k == (2,)
    assert Run.open(run.folder, ["representation.pooling=max"]).recipe.representation.pooling == "max"
    assert Run.open(run.folder, ["data.split=cross_view_dev"]).recipe.data.split == "cross_view_dev"
    for override in ("seed=1", "data.splits=x", "data.frames=3", "data.stores=x", "encoder.hidden=4"):
        with pytest.raises(
            UserError,
            match=r"only evaluation\., representation\., device=, encoder.kernel=, data.store=, data.split=",
        ):
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
    broken = tmp_path / "broken"
    shutil.copytree(store, broken)
    frames_rvc = np.load(broken / "frames.npy")
    frames_rvc[7, 3, 1] = np.inf
    np.save(broken / "frames.npy", frames_rvc)
    for data, message in (
        ({"split": "cross_vew"}, "did you mean 'cross_view'"),
        ({"store": str(tmp_path)}, "not a prepared store"),
        ({"bodies": 2}, r"data\.bodies: 2, but no clip of .*store has more than 1"),
        ({"store": str(broken)}, r"broken/frames\.npy: row 7 is not finite"),
    ):
        recipe = Recipe.from_tree(tree | {"data": tree["data"] | data}, "recipe")
        with pytest.raises(UserError, match=message):
            Run.start(recipe, tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("pretext", ["contrast", "fuse_contrast", "fuse_joint"])
def test_streams_that_do_not_fit_their_key_leave_no_folder(pretext, store, tmp_path):
    tree = recipe_tree(store, pretext)
    tree["stages"][-1]["pretext"] = tree["stages"][-1]["pretext"] | {"input": {"streams": ["joint", "bone"]}}
    with pytest.raises(UserError, match="contrastive_motion: key has 1 streams, input 2"):
        Run.start(Recipe.from_tree(tree, "recipe"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stage_that_is_not_finished_is_not_evaluated(run, store, tmp_path):
    fresh = Run.start(tiny_recipe(store), tmp_path / "run")
    with pytest.raises(UserError, match=r"main.pt: no such checkpoint; train it"):
        evaluate(fresh, "knn")
    teacher, student = run.recipe.stages
    longer = student.model_copy(update={"training": student.training.model_copy(update={"epochs": 9})})
    with pytest.raises(UserError, match=r"main.pt: stands at epoch 1 of 9; go on with --resume"):
        evaluate(reopened(run, stages=(teacher, longer)), "knn")


def test_another_architecture_is_refused(run):
    wider = reopened(run, encoder=run.recipe.encoder.model_copy(update={"hidden": 9}))
    with pytest.raises(UserError, match=r"main\.pt: gru\.bias_hh_l0 is \(24,\), but should be \(27,\)"):
        evaluate(wider, "knn")


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_shipped_recipes_run(path, tmp_path):
    recipe, stores, splits = load_recipe(path), [], []
    for number, (name, split) in enumerate(zip(recipe.data.stores, recipe.data.splits, strict=True)):
        dataset = Path(name).name
        assert dataset in FORMATS
        own = dataset == "own"  # of any layout, and of any split
        store = tiny_store(
            tmp_path / f"store{number}",
            "nw_ucla" if own else dataset,
            bodies=recipe.data.bodies,
            coordinates=IMAGE if path.stem.endswith("_2d") else METRES,
        )
        stores.append(str(store))
        splits.append("cross_view" if own else split.removesuffix("_val"))  # the store has no subject 7
    narrow = "encoder.hidden=4" if recipe.encoder.name == "gru" else "encoder.width=0.1"
    small = ["device=cpu", f"data.store={stores}", f"data.split={splits}", narrow]
    short = [f"stages.{stage}.training.epochs=1" for stage in range(len(recipe.stages))]
    run = Run.start(load_recipe(path, [*small, *short, "evaluation.linear.epochs=2"]), tmp_path / "run")
    run.pretrain()
    opened = Run.open(run.folder, [f"data.store={stores[0]}", f"data.split={splits[0]}"])
    assert 0 <= evaluate(opened, "linear")["top1"] <= 1


def test_an_encoder_that_cannot_run_here_is_refused_before_a_folder_is_made(store, tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    recipe = tiny_recipe(store, encoder={"name": "shift_gcn", "width": 0.1, "depth": 0.1, "kernel": "triton"})
    with pytest.raises(UserError, match="kernel: triton"):
        Run.start(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_kernel_can_be_another_one_on_another_machine(store, tmp_path):
    recipe = tiny_recipe(store, epochs=1, encoder={"name": "shift_gcn", "width": 0.1, "depth": 0.1})
    run = Run.start(recipe, tmp_path / "run")
    assert Run.open(run.folder, ["encoder.kernel=torch"]).recipe.encoder.kernel == "torch"
