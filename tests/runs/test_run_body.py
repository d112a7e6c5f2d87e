"""The joints and coordinates that a run keeps, and the stores that it can be evaluated on with them."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from builders import one_line
from tiny import recipe_tree, tiny_store

from ssl_skeleton.data.recording import IMAGE, METRES
from ssl_skeleton.data.views.normalise import NormaliseConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.recipe import Body, Recipe
from ssl_skeleton.runs import run as run_module
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run
from ssl_skeleton.skeleton.layout import load_layout

FLAT = {"normalise": {"facing": "none"}}


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    """Stores of two bodies, and one in the plane."""
    folder = tmp_path_factory.mktemp("stores")
    return {
        "v1": tiny_store(folder / "v1"),
        "v2": tiny_store(folder / "v2", layout="kinect_v2_25"),
        "flat": tiny_store(folder / "flat", coordinates=IMAGE),
    }


def recipe(store: object, **data: object) -> Recipe:
    tree = recipe_tree(Path("unused"), epochs=1)
    return Recipe.from_tree(tree | {"data": tree["data"] | {"store": store} | data}, "recipe")


def trained(recipe: Recipe, folder: Path) -> Run:
    run = Run.start(recipe, folder)
    run.pretrain()
    return run


@pytest.fixture
def run(stores, tmp_path) -> Run:
    """A finished run on the larger body, in a folder that a test may spoil."""
    return trained(recipe(str(stores["v2"])), tmp_path / "run")


@pytest.mark.parametrize(("name", "coordinates"), [("v2", METRES), ("flat", IMAGE)])
def test_a_run_keeps_its_joints_and_coordinates(name, coordinates, stores, tmp_path):
    run = Run.start(recipe(str(stores[name]), layout="common_15", **FLAT), tmp_path / "run")
    kept = json.loads((run.folder / "body.json").read_text())
    assert kept == {"layout": load_layout("common_15").to_tree(), "coordinates": list(coordinates)}
    assert Run.open(run.folder).body == run.body


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coordinate": ["x"]}, "unknown key 'coordinate'; did you mean 'coordinates'?"),
        ({"coordinates": []}, "coordinates: "),
        ({"layout": {"name": "mine"}}, "layout.joints: this key is missing"),
    ],
)
def test_what_a_run_keeps_is_read_strictly(change, message, run):
    path = run.folder / "body.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError) as caught:
        evaluate(Run.open(run.folder), "knn")
    assert one_line(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(("own", "other"), [("v1", "flat"), ("flat", "v1")])
def test_a_store_with_other_coordinates_is_not_evaluated_on(own, other, stores, tmp_path):
    run = trained(recipe(str(stores[own]), **FLAT), tmp_path / "run")
    with pytest.raises(UserError) as caught:
        evaluate(Run.open(run.folder, [f"data.store={stores[other]}"]), "knn")
    has, sees = (", ".join(METRES if name == "v1" else IMAGE) for name in (other, own))
    assert one_line(caught.value).startswith(f"{stores[other]}: has {has}, but the run sees {sees}; ")
    assert not (run.folder / "eval").exists()


def test_stores_with_different_coordinates_are_not_trained_on_together(stores, tmp_path):
    both = recipe([str(stores["v1"]), str(stores["flat"])], **FLAT)
    with pytest.raises(
        UserError, match="flat: has x, y, confidence, but the run sees x, y, z; choose"
    ) as caught:
        Run.start(both, tmp_path / "run")
    one_line(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_view_that_the_run_cannot_give_is_not_evaluated(stores, tmp_path):
    run = trained(recipe(str(stores["flat"]), **FLAT), tmp_path / "run")
    data = run.recipe.data.model_copy(update={"normalise": NormaliseConfig()})
    changed = Run(run.folder, run.recipe.model_copy(update={"data": data}))  # as by hand
    with pytest.raises(UserError, match=r"data\.normalise\.facing: needs x, y and z"):
        evaluate(changed, "knn")


def test_a_run_without_what_it_keeps_sees_what_its_own_store_has(run, stores):
    expected = Body(layout=load_layout("kinect_v2_25"), coordinates=METRES)
    (run.folder / "body.json").unlink()
    assert Run.open(run.folder).body == expected
    other = Run.open(run.folder, [f"data.store={stores['v1']}"])
    assert other.body == expected
    with pytest.raises(UserError, match="kinect_v1_20 cannot be turned into kinect_v2_25"):
        evaluate(other, "knn")


def test_without_its_own_store_nobody_knows_what_it_sees(stores, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(stores["v1"], own)
    run = trained(recipe(str(own)), tmp_path / "run")
    words = [f"data.store={stores['v2']}"]
    shutil.rmtree(own)
    assert "top1" in evaluate(Run.open(run.folder, words), "knn")
    (run.folder / "body.json").unlink()
    with pytest.raises(UserError) as caught:
        evaluate(Run.open(run.folder, words), "knn")
    line = one_line(caught.value)
    assert line.startswith(f"{run.folder}: has no body.json to see other stores with: {own}: ")


def test_going_on_writes_what_is_missing(run):
    kept = run.folder / "body.json"
    before = kept.read_bytes()
    kept.unlink()
    Run.start(run.recipe, run.folder, resume=True)
    assert kept.read_bytes() == before


def test_no_recipe_is_written_before_its_body(stores, tmp_path, monkeypatch):
    def fail(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "write_text", fail)
    with pytest.raises(UserError, match="run: cannot be written"):
        Run.start(recipe(str(stores["v1"])), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"body.json", "environment.json"}


def test_a_run_goes_on_without_its_layout_file(stores, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(load_layout("common_15").to_tree() | {"name": "mine"}))
    mine = recipe(str(stores["v1"]), layout="mine.yaml")
    Run.start(mine, tmp_path / "run")
    path.unlink()
    run = Run.start(mine, tmp_path / "run", resume=True)
    run.pretrain()
    result = evaluate(Run.open(run.folder, [f"data.store={stores['v2']}"]), "knn")
    assert result["layout"] == "mine"


def test_a_layout_that_is_nowhere_gets_the_nearest_name(stores, tmp_path):
    with pytest.raises(UserError, match=r"no layout and no file '.*comon_15'; did you mean 'common_15'\?"):
        Run.start(recipe(str(stores["v1"]), layout="comon_15"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_result_counts_the_validation_clips_and_names_what_was_repaired(stores, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(stores["v1"], store)
    meta = json.loads((store / "meta.json").read_text())
    rule = {"column": "camera", "train": [1], "validation": [2], "test": [3]}
    meta["splits"]["three"] = rule
    (store / "meta.json").write_text(json.dumps(meta))
    mended = recipe(str(store), split="three", repair={"smooth": 5}, layout="common_15")
    result = evaluate(trained(mended, tmp_path / "run"), "linear")
    assert result["clips"] == {"train": 9, "validation": 9, "test": 9}
    assert result["repair"] == mended.data.repair.to_tree()
    assert result["repair"]["smooth"] == 5
    assert result["layout"] == "common_15"
