from pathlib import Path

import pytest
import yaml
from tiny import PRETEXTS, recipe_tree, tiny_recipe

from ssl_skeleton.config import apply_overrides
from ssl_skeleton.data.views.normalise import NormaliseConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.recipe import Recipe, differing_keys, load_recipe, recipe_differences

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
STORE = Path("store")


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_shipped_recipes_load_and_are_named_after_their_file(path):
    recipe = load_recipe(path)
    assert recipe.name == path.stem


@pytest.mark.parametrize("folder", ["", "configs", "./configs", "."])
def test_a_shipped_recipe_is_found_from_anywhere(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in CONFIGS:
        assert load_recipe(Path(folder) / path.name) == load_recipe(path)


@pytest.mark.parametrize(
    "folder", ["nowhere", "mine/configs", "../configs", "{absolute}", "{absolute}/configs"]
)
def test_a_recipe_in_another_folder_is_not_taken_for_a_shipped_one(folder, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = Path(folder.format(absolute=tmp_path)) / CONFIGS[0].name
    with pytest.raises(UserError) as error:
        load_recipe(path)
    assert str(error.value) == f"{path}: no such file"


def test_a_recipe_of_ones_own_goes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(CONFIGS[0].name).write_text(yaml.safe_dump(recipe_tree(STORE) | {"name": "mine"}))
    assert load_recipe(Path(CONFIGS[0].name)).name == "mine"


@pytest.mark.parametrize("pretext", PRETEXTS)
def test_a_recipe_survives_its_file(pretext, tmp_path):
    recipe = tiny_recipe(STORE, pretext)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.to_tree()))
    assert load_recipe(path) == recipe
    assert recipe_differences(recipe, load_recipe(path)) == []


def test_overrides_and_differences(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_tree(STORE)))
    recipe, changed = load_recipe(path), load_recipe(path, ["seed=3", "stages.0.training.optimiser.lr=1e-4"])
    assert changed.stages[0].training.optimiser.lr == 1e-4
    assert recipe_differences(recipe, changed) == [
        "seed is 0 there, 3 here",
        "stages.0.training.optimiser.lr is 0.01 there, 0.0001 here",
    ]
    other = load_recipe(path, ["data.frames=null"])
    assert recipe_differences(recipe, other) == ["data.frames is 6 there, None here"]
    assert recipe_differences(recipe, load_recipe(path, ["device=auto"])) == []
    moved = load_recipe(path, ["device=auto", "seed=3"])
    assert recipe_differences(recipe, moved) == ["seed is 0 there, 3 here"]
    assert differing_keys(recipe, moved) == {"seed": (0, 3)}


@pytest.mark.parametrize("link", [False, True])
def test_a_path_is_the_same_whichever_way_it_leads_there(link, tmp_path, monkeypatch):
    for folder in ("work", "store", "elsewhere/deep", "elsewhere/store"):
        (tmp_path / folder).mkdir(parents=True)
    if link:
        (tmp_path / "work").rmdir()
        (tmp_path / "work").symlink_to(tmp_path / "elsewhere" / "deep")
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(CONFIGS[0], ["name=a", "data.store=work/../store"]).with_absolute_paths()
    way = "work/../store" if link else "store"  # behind the link, `..` is another folder
    assert recipe.data.store == str(tmp_path / way)
    assert recipe.with_absolute_paths() == recipe


def test_the_path_of_a_store_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = tiny_recipe(STORE)
    absolute = recipe.with_absolute_paths()
    assert absolute.data.store == str(tmp_path / "store")
    difference = f"data.store is 'store' there, {absolute.data.store!r} here"
    assert recipe_differences(recipe, absolute) == [difference]
    monkeypatch.chdir(tmp_path.parent)
    assert absolute.with_absolute_paths() == absolute


@pytest.mark.parametrize(
    ("layout", "kept"), [(None, None), ("common_15", "common_15"), ("mine.yaml", "{here}/mine.yaml")]
)
def test_the_path_of_a_layout_is_made_absolute_even_without_a_file(layout, kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tree = recipe_tree(STORE)
    recipe = Recipe.from_tree(tree | {"data": tree["data"] | {"layout": layout}}, "recipe")
    expected = kept and kept.format(here=tmp_path)
    assert recipe.with_absolute_paths().data.layout == expected


def test_by_default_the_last_stage_is_evaluated():
    recipe = tiny_recipe(STORE, "fuse")
    assert recipe.evaluated_stages == ("main",)
    both = tiny_recipe(STORE, "fuse", representation={"stages": ["teacher", "main"]})
    assert both.evaluated_stages == ("teacher", "main")


@pytest.mark.parametrize("value", ["agcn", {"center": "none", "facing": "yaw", "scale": "torso"}])
def test_a_normalisation_is_a_name_or_a_tree(value, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_tree(STORE)))
    plain, recipe = load_recipe(path), Recipe.from_tree(change("data.normalise", value), "recipe")
    assert plain.data.normalise == NormaliseConfig()
    assert recipe.to_tree()["data"]["normalise"] == value
    assert Recipe.from_tree(yaml.safe_load(yaml.safe_dump(recipe.to_tree())), "recipe") == recipe
    assert recipe_differences(recipe, recipe) == []
    path.write_text(yaml.safe_dump(recipe.to_tree()))
    assert load_recipe(path, ["data.normalise={facing: yaw}"]).data.normalise == NormaliseConfig(facing="yaw")
    assert load_recipe(path, ["data.normalise=agcn"]).data.normalise == "agcn"


def test_a_normalisation_by_name_differs_from_a_tree():
    named, tree = (Recipe.from_tree(change("data.normalise", value), "here") for value in ("agcn", {}))
    assert recipe_differences(named, tree)[0] == "data.normalise is 'agcn' there, None here"
    assert recipe_differences(tree, named)[0] == "data.normalise.center is 'first_frame' there, None here"


def change(path: str, value) -> dict:
    """The tree of a recipe with one value set."""
    tree = node = recipe_tree(STORE, "fuse")
    *keys, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
    for key in keys:
        node = node[key]
    node[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sed", 1, "recipe: unknown key 'sed'; did you mean 'seed'?"),
        ("data.splitt", "x", "recipe: data: unknown key 'splitt'; did you mean 'split'?"),
        ("data.normalise", "agnc", "recipe: data.normalise: 'agnc' is not possible; did you mean 'agcn'?"),
        ("data.normalise", "none", "data.normalise: 'none' is not possible; choose one of agcn, {center: "),
        ("data.normalise", 3, "data.normalise: '3' is not possible; choose one of agcn, {center: ..., f"),
        ("data.normalise", None, "data.normalise: 'None' is not possible; choose one of agcn, {center: .."),
        ("data.normalise", ["agcn"], "data.normalise: '['agcn']' is not possible; did you mean 'agcn'?"),
        ("data.normalise", {"centre": "none"}, "data.normalise: unknown key 'centre'; did you mean 'center'"),
        (
            "data.normalise",
            {"center": "nne"},
            "data.normalise.center: 'nne' is not possible; did you mean 'n",
        ),
        ("encoder.name", "gruu", "recipe: encoder: unknown name 'gruu'; did you mean 'gru'?"),
        ("encoder.hiden", 4, "recipe: encoder: unknown key 'hiden'; did you mean 'hidden'?"),
        ("device", "gpu", "recipe: device: 'gpu' is not possible"),
        ("name", "a/b", "recipe: name: "),
        ("seed", 1.5, "recipe: seed: "),
        ("seed", -1, "recipe: seed: "),
        ("seed", 2**63, "recipe: seed: "),
        (
            "stages.0.training.optimiser",
            {"name": "sgd", "nesterov": True, "momentum": 0.0},
            "needs a momentum",
        ),
        ("stages.0.training.optimiser", {"name": "adamw", "betas": [0.9, 1.0]}, "optimiser.betas.1: "),
        ("stages.0.pretext", {"name": "contrastive_motion", "key_draw": "input"}, "unknown key 'key_draw'"),
        ("evaluation.linear", {"rates": []}, "evaluation.linear.rates: "),
        ("stages", [], "recipe: stages: "),
        ("stages.1.name", "teacher", "stages.1.name: 'teacher' stands twice"),
        ("stages.1.pretext", {"name": "contrastive_moton"}, "did you mean 'contrastive_motion'?"),
        ("stages.1.pretext", {"name": "information_fuser", "teacher": "techer"}, "did you mean 'teacher'?"),
        (
            "stages.0.pretext",
            {"name": "information_fuser", "teacher": "main"},
            "the first stage can have none",
        ),
        ("stages.1.pretext", {"name": "information_fuser", "teacher": "main"}, "no earlier stage 'main'"),
        ("stages.0.training.optimiser", {"name": "sdg"}, "unknown name 'sdg'; did you mean 'sgd'?"),
        ("stages.0.training.epochs", 0, "stages.0.training.epochs: "),
        ("stages.0.training.accumulate", 0, "stages.0.training.accumulate: "),
        ("stages.0.training.accumulate", 9, "accumulate: 9 micro-batches of a batch of 4 clips"),
        ("stages.0.training.precision", "fp8", "precision: 'fp8' is not possible; did you mean 'fp"),
        ("stages.0.training.lr_of_batch", 0, "stages.0.training.lr_of_batch: "),
        ("stages.0.training.checkpoint_steps", 0, "stages.0.training.checkpoint_steps: "),
        ("stages.0.training.keep", 0, "stages.0.training.keep: "),
        ("data.residence", "disk", "data.residence: 'disk' is not possible"),
        ("watch", {"kn": 1}, "watch: unknown key 'kn'; did you mean 'knn'?"),
        ("representation", {"stages": ["mian"]}, "no stage 'mian'; did you mean 'main'?"),
        ("evaluation.knn.k", [], "evaluation.knn.k: "),
    ],
)
def test_mistakes_are_named(path, value, message):
    with pytest.raises(UserError) as error:
        Recipe.from_tree(change(path, value), "recipe")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["name", "data", "stages"])
def test_a_missing_key_is_named(key):
    tree = recipe_tree(STORE)
    del tree[key]
    with pytest.raises(UserError, match=f"recipe: {key}: this key is missing"):
        Recipe.from_tree(tree, "recipe")


def test_a_missing_file_gets_the_nearest_shipped_one():
    with pytest.raises(UserError, match=r"no such file; did you mean configs/crrl_nw_ucla.yaml\?"):
        load_recipe(Path("configs/crl_nw_ucla.yaml"))


def test_the_largest_seed():
    assert Recipe.from_tree(change("seed", 2**63 - 1), "recipe").seed == 2**63 - 1


@pytest.mark.parametrize(
    "override",
    [
        "device=auto",
        "data.residence=mapped",
        "encoder.kernel=torch",
        "stages.0.training.compile=true",
        "stages.1.training.compile=true",
        "watch.health=0",
        "watch={knn: 1, clips: 9}",
    ],
)
def test_what_belongs_to_the_machine_or_only_looks_is_no_difference(override):
    recipe = tiny_recipe(STORE, "fuse", encoder={"name": "shift_gcn", "width": 0.1})
    changed = Recipe.from_tree(apply_overrides(recipe.to_tree(), [override]), "recipe")
    assert changed != recipe
    assert recipe_differences(recipe, changed) == []
    assert recipe_differences(recipe, changed.model_copy(update={"seed": 7})) != []


def test_the_kernel_of_an_encoder_within_another_is_no_difference():
    tree = {"name": "two_rate", "encoder": {"name": "shift_gcn", "width": 0.1}}
    recipe = tiny_recipe(STORE, encoder=tree)
    changed = apply_overrides(recipe.to_tree(), ["encoder.encoder.kernel=torch"])
    assert recipe_differences(recipe, Recipe.from_tree(changed, "recipe")) == []


@pytest.mark.parametrize(
    "override",
    ["stages.0.training.accumulate=2", "stages.0.training.precision=bf16", "data.bodies=2"],
)
def test_what_changes_numbers_is_a_difference(override):
    recipe = tiny_recipe(STORE)
    changed = Recipe.from_tree(apply_overrides(recipe.to_tree(), [override]), "recipe")
    assert recipe_differences(recipe, changed) != []


@pytest.mark.parametrize(
    ("encoder", "fault"),
    [
        ({"name": "st_gcn", "blocks": 8}, "encoder.blocks: '8' is not possible; choose one of 10, 9"),
        ("ctr_gcn", "encoder: input should be a mapping, not 'ctr_gcn'"),
        (
            {"name": "st_gcn", "inserts": [{"name": "non_local", "blocks": []}]},
            "encoder.inserts.0.blocks: list should have at least 1 item, not 0",
        ),
    ],
)
def test_wrong_encoders_get_a_line_without_jargon(encoder, fault):
    with pytest.raises(UserError) as error:
        tiny_recipe(STORE, encoder=encoder)
    assert str(error.value) == f"recipe: {fault}"
