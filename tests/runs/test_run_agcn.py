"""Runs whose clips are normalised as published AGCN weights expect them."""

from pathlib import Path

import pytest
import torch
import yaml
from builders import one_line
from tiny import recipe_tree, tiny_recipe, tiny_store

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import IMAGE
from ssl_skeleton.data.store import open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run
from ssl_skeleton.skeleton.layout import load_layout


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Clips of 4 to 9 frames and two bodies."""
    return tiny_store(tmp_path_factory.mktemp("stores") / "store", layout="kinect_v2_25", bodies=2)


def recipe(store: Path, /, **data) -> Recipe:
    tree = recipe_tree(store, epochs=2)
    looped = {"normalise": "agcn", "frames": 12, "bodies": 2}
    return Recipe.from_tree(tree | {"data": tree["data"] | looped | data}, "recipe")


def test_a_run_trains_and_scores(store, tmp_path):
    run = Run.start(recipe(store), tmp_path / "run")
    run.pretrain()
    opened = Run.open(run.folder)
    assert opened.recipe.data.normalise == "agcn"
    for evaluator in ("linear", "knn"):
        result = evaluate(run, evaluator)
        assert 0 <= result["top1"] <= 1
        assert result["baselines"].keys() == {"raw", "untrained"}
        assert evaluate(opened, evaluator) == result


def test_a_run_goes_on_with_the_same_normalisation_alone(store, tmp_path):
    Run.start(recipe(store), tmp_path / "run")
    Run.start(recipe(store), tmp_path / "run", resume=True)
    with pytest.raises(UserError, match=r"holds another recipe .*data.normalise is 'agcn' there"):
        Run.start(recipe(store, normalise={}), tmp_path / "run", resume=True)


def test_all_bodies_of_a_clip_compete(store, tmp_path):
    """One body a clip: the one that moves most, which is not always the one that is stored first."""
    looped, plain = (
        Run.start(made, tmp_path / made.name).packed
        for made in (recipe(store, bodies=1), tiny_recipe(store, name="plain"))
    )
    both = PackedClips(open_store(store), bodies=2)
    seconds = 0
    for clip in torch.arange(len(both.lengths))[:, None]:
        x_ctvm = both.gather(clip, None).x[0]
        strongest = int(x_ctvm.flatten(1, 2).std(dim=1, correction=0).sum(dim=0).argmax())
        seconds += strongest
        assert torch.equal(looped.gather(clip, None).x[0, ..., 0], x_ctvm[..., strongest])
        assert torch.equal(plain.gather(clip, None).x[0, ..., 0], x_ctvm[..., 0])
    assert 0 < seconds < len(both.lengths)


def test_what_cannot_be_looped_leaves_no_folder(store, tmp_path):
    flat = tiny_store(tmp_path / "flat", coordinates=IMAGE)
    stick = load_layout("kinect_v2_25").model_copy(update={"name": "stick", "facing": None})
    (tmp_path / "stick.yaml").write_text(yaml.safe_dump(stick.to_tree()))
    for data, message in (
        ({"frames": None}, "data.frames: null keeps each clip's own frames"),
        (
            {"store": str(flat), "bodies": 1},
            "agcn needs x, y and z, but the store has x, y, confidence; set it to",
        ),
        ({"layout": str(tmp_path / "stick.yaml")}, "the layout stick does not say where they are"),
    ):
        with pytest.raises(UserError) as error:
            Run.start(recipe(store, **data), tmp_path / "run")
        assert message in one_line(error.value)
        assert not (tmp_path / "run").exists()
