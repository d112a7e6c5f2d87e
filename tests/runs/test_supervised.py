import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import recipe_tree, same, tiny_recipe, tiny_store, unevaluated

from ssl_skeleton.data.views.augment import AugmentConfig
from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation import finetune as finetune_module
from ssl_skeleton.evaluation.features import labels_of_test, raw_encoding, split_features
from ssl_skeleton.evaluation.linear import linear_probe
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.run import Run
from ssl_skeleton.runs.supervised import check_supervised, finetune
from ssl_skeleton.skeleton.layout import load_layout

SHORT = {"epochs": 2, "batch": 4}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Run:
    """A finished run of two stages, both of which make the representation."""
    tree = recipe_tree(store, "fuse", epochs=1)
    tree["evaluation"]["finetune"] = SHORT
    tree["representation"] = {"stages": ["teacher", "main"]}
    run = Run.start(Recipe.from_tree(tree, "recipe"), tmp_path_factory.mktemp("runs") / "fuse")
    run.pretrain()
    return run


@pytest.fixture(scope="module")
def result(run) -> dict:
    return finetune(run)


@pytest.fixture
def fresh(run, tmp_path) -> Path:
    """The folder of a copy of the run that was never evaluated."""
    return unevaluated(run.folder, tmp_path / "run")


def starts(run: Run, monkeypatch, **options) -> list[list[dict]]:
    """The states of the encoders with which every training began."""
    found, classifier = [], finetune_module.Classifier

    def noted(sources, classes):
        found.append([{k: v.clone() for k, v in one.encoder.state_dict().items()} for one in sources])
        return classifier(sources, classes)

    with monkeypatch.context() as patch:
        patch.setattr(finetune_module, "Classifier", noted)
        finetune(run, **options)
    return found


def test_a_result_holds_all_that_is_promised(run, result):
    path = run.folder / "eval" / "finetune-store-cross_view.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    facts = {"evaluator": "finetune", "store": "store", "split": "cross_view", "epoch": 1, "seed": 0}
    assert facts.items() <= result.items()
    assert result["stages"] == {"teacher": 1, "main": 1}
    assert result["clips"] == {"train": 18, "test": 9, "labelled": 18}
    assert result["protocol"] == run.recipe.evaluation.finetune.to_tree() | {"repeats": 1}
    assert result["raw_protocol"] == run.recipe.evaluation.linear.to_tree()
    assert [[sorted(values) for values in log] for log in result["log"]] == [[["accuracy", "loss"]] * 2]
    assert result["baselines"].keys() == {"raw", "untrained"}
    for scores in (result, *result["baselines"].values()):
        assert {"top1", "per_class", "confusion", "repeats"} <= scores.keys()
        assert np.array(scores["confusion"]).sum() == 9
    assert result["baselines"]["raw"].keys() == result["baselines"]["untrained"].keys()


def test_the_baseline_is_the_training_from_scratch(run, result):
    path = run.folder / "eval" / "finetune_scratch-store-cross_view.json"
    left = json.loads(path.read_text())
    path.unlink()
    scratch = json.loads(json.dumps(finetune(run, from_scratch=True)))
    assert left == scratch == json.loads(path.read_text())
    assert (scratch["epoch"], scratch["stages"]) == (0, {"teacher": 0, "main": 0})
    assert scratch["baselines"].keys() == {"raw"}
    assert scratch["baselines"]["raw"] == result["baselines"]["raw"]
    assert result["baselines"]["untrained"].items() <= scratch.items()
    assert scratch["log"] != result["log"]


def test_the_raw_baseline_is_the_linear_probe(run, result):
    split = run.splits[0]
    raw = split_features(run.packed, split, raw_encoding(run.packed, run.recipe.data, ViewConfig()))
    expected = linear_probe(raw, 3, run.recipe.evaluation.linear, 0)(labels_of_test(run.packed, split))
    assert result["baselines"]["raw"]["confusion"] == expected["confusion"]


def test_where_each_training_begins(run, fresh, monkeypatch):
    repeated = Run.open(fresh, ["evaluation.finetune.repeats=2", "evaluation.finetune.epochs=1"])
    found = starts(repeated, monkeypatch)
    stages = run.recipe.stages
    for number, stage in enumerate(stages):
        trained = run.trained_encoder(stage).state_dict()
        first, again, *tuned = [each[number] for each in found]
        assert same(first, run.build_encoder(stage).state_dict())
        assert not same(first, again)
        assert same(tuned, [trained, trained])
    assert [each[0].keys() == each[1].keys() for each in found] == [True] * 4


def test_it_is_repeatable_and_leaves_the_checkpoints_alone(run, result):
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    assert finetune(Run.open(run.folder)) == result
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_it_trains_the_whole_encoder(run, fresh, monkeypatch):
    models, training = [], finetune_module._Training
    monkeypatch.setattr(
        finetune_module, "_Training", lambda *given: models.append(training(*given)) or models[-1]
    )
    finetune(Run.open(fresh), untrained=False)
    (model,) = [one.model for one in models]
    for encoder, stage in zip(model.encoders, run.recipe.stages, strict=True):
        before = dict(run.trained_encoder(stage).named_parameters())
        for name, parameter in encoder.named_parameters():
            assert not torch.equal(parameter, before[name]), name


def test_clips_are_seen_in_the_encoders_streams_and_changed_as_finetuning_says(store, tmp_path, monkeypatch):
    tree = recipe_tree(store, "reconstruct_two_streams", epochs=1)
    tree["evaluation"]["finetune"] = {**SHORT, "augment": {"crop": 0.7, "flip": 0.5}}
    run = Run.start(Recipe.from_tree(tree, "recipe"), tmp_path / "run")
    made, classifier = [], finetune_module.Classifier
    monkeypatch.setattr(
        finetune_module, "Classifier", lambda sources, n: made.extend(sources) or classifier(sources, n)
    )
    finetune(run, from_scratch=True)
    (seen,) = [source.view for source in made]
    assert seen == ViewConfig(
        streams=run.recipe.stages[0].pretext.input.streams, augment=AugmentConfig(crop=0.7, flip=0.5)
    )
    assert seen.streams == ("joint", "motion")


def test_few_labels_have_a_result_of_their_own(fresh):
    few = Run.open(fresh, ["evaluation.finetune.labels=0.3", "evaluation.finetune.repeats=3"])
    result = finetune(few)
    assert {path.name for path in (fresh / "eval").iterdir()} == {
        "finetune_0.3-store-cross_view-repeats=3.json",
        "finetune_scratch_0.3-store-cross_view-repeats=3.json",
    }
    assert (result["evaluator"], result["clips"]["labelled"]) == ("finetune_0.3", 6)
    for scores in (result, *result["baselines"].values()):
        assert len(scores["repeats"]["top1"]) == 3
        assert scores["std"]["top1"] == pytest.approx(np.std(scores["repeats"]["top1"], ddof=1))
    assert len(result["log"]) == 3


def test_without_the_untrained_baseline(fresh, result):
    bare = finetune(Run.open(fresh), untrained=False)
    assert bare["baselines"] == {"raw": result["baselines"]["raw"]}
    assert [path.name for path in (fresh / "eval").iterdir()] == ["finetune-store-cross_view.json"]
    assert bare | {"baselines": result["baselines"]} == result


def test_the_streams_of_the_encoder_are_seen_and_have_a_raw_baseline(store, tmp_path):
    tree = recipe_tree(store, "reconstruct_two_streams", epochs=1)
    tree["evaluation"]["finetune"] = SHORT
    run = Run.start(Recipe.from_tree(tree, "recipe"), tmp_path / "run")
    result = finetune(run, from_scratch=True)
    assert result["streams"] == ["joint", "motion"]
    assert result["baselines"].keys() == {"raw", "raw_streams"}


def test_another_store_is_learned_with_the_joints_of_the_run(run, tmp_path):
    other = tiny_store(tmp_path / "other", layout="kinect_v2_25")
    opened = Run.open(run.folder, [f"data.store={other}"])
    result = finetune(opened, untrained=False)
    assert (result["store"], result["layout"]) == ("other", "kinect_v1_20")


def test_an_encoder_that_is_missing_is_missed_before_anything_is_trained(store, tmp_path, monkeypatch):
    run = Run.start(tiny_recipe(store), tmp_path / "run")
    monkeypatch.setattr(finetune_module, "Classifier", None)
    with pytest.raises(UserError, match=r"main\.pt: no such checkpoint; train it"):
        finetune(run)
    assert not (run.folder / "eval").exists()


def test_what_cannot_be_learned_is_told_without_loading_frames(store, tmp_path):
    layout = load_layout("kinect_v1_20").to_tree() | {"name": "bare", "mirror": {}}
    (tmp_path / "bare.yaml").write_text(yaml.safe_dump(layout))
    tree = recipe_tree(store)
    tree["evaluation"]["finetune"] = {"augment": {"flip": 0.5}}
    for data, message in (
        ({"split": "all"}, "split all: has no test part"),
        ({"layout": str(tmp_path / "bare.yaml")}, "augment.flip: the layout bare does not say"),
    ):
        run = Run(tmp_path / "run", Recipe.from_tree(tree | {"data": tree["data"] | data}, "recipe"))
        with pytest.raises(UserError, match=message):
            check_supervised(run)
        assert "packed" not in vars(run)
    assert not (tmp_path / "run").exists()


def test_a_store_without_labels_cannot_be_learned_from(tmp_path):
    store = tiny_store(tmp_path / "store", labelled=False)
    run = Run.start(tiny_recipe(store), tmp_path / "run")
    with pytest.raises(UserError, match=f"^{re.escape(str(store))}: split cross_view: no clip has a label"):
        finetune(run, from_scratch=True)


def test_of_several_stores_one_must_be_said(store, tmp_path):
    both = [str(store), str(tiny_store(tmp_path / "other"))]
    tree = recipe_tree(store)
    run = Run.start(
        Recipe.from_tree(tree | {"data": tree["data"] | {"store": both}}, "recipe"), tmp_path / "run"
    )
    with pytest.raises(UserError, match="learned from 2 stores; say which one"):
        finetune(run, from_scratch=True)
