"""A run folder that a stranger wrote: opening it, or going on with it, ends well or in one line."""

import copy
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from builders import examples, one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import recipe_tree, tiny_recipe, tiny_store

from ssl_skeleton.errors import Stopped, UserError
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.checkpoint import load_checkpoint

LITTLE = 256 * 2**20  # bytes that reading a small folder may take at most


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def stopped(store, tmp_path_factory) -> Run:
    """A run of two stages that stands in the middle of the second."""
    run = Run.start(tiny_recipe(store, "fuse_contrast", epochs=1), tmp_path_factory.mktemp("runs") / "run")

    def stop(standing):
        if standing.stage == "main" and standing.step == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        run.pretrain(stop)
    return run


class Tree(dict):
    """What a checkpoint holds; hypothesis, which shows what a test failed with, shows its name alone."""

    def __repr__(self) -> str:
        return "the tree"


@pytest.fixture(scope="module")
def tree(stopped) -> Tree:
    """What the checkpoint of its second stage holds."""
    return Tree(vars(load_checkpoint(stopped.folder / "checkpoints" / "main.pt", "main")))


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.text(max_size=5),
    st.just([]),
    st.just({}),
    st.builds(
        torch.full,
        st.lists(st.integers(0, 3), max_size=3),
        st.sampled_from([0, 1, -1]),
        dtype=st.sampled_from([torch.float32, torch.float64, torch.int64, torch.bool]),
    ),
    st.just(torch.full((8,), torch.nan)),
)


@st.composite
def changed(draw: st.DrawFn, tree: Tree) -> dict[Any, Any]:
    """The tree with one to three of its parts replaced, taken away, doubled or mixed up."""
    tree = copy.deepcopy(dict(tree))
    for _ in range(draw(st.integers(1, 3))):
        node, key = tree, draw(st.sampled_from(sorted(tree, key=str)))
        while isinstance(node[key], dict | list) and len(node[key]) and draw(st.integers(0, 5)):
            node = node[key]
            key = draw(st.sampled_from(sorted(node, key=str) if isinstance(node, dict) else range(len(node))))
        kind = draw(st.sampled_from(("replaced", "taken", "doubled", "tensor")))
        if kind == "taken":
            del node[key]
        elif kind == "doubled" and isinstance(node, dict):
            node[draw(st.text(max_size=3) | st.integers(-1, 99))] = node[key]
        elif kind == "tensor" and isinstance(node[key], torch.Tensor):
            change = draw(
                st.sampled_from((lambda x: x[None], lambda x: x.double() * 1e300, lambda x: x.cumsum(0).T))
            )
            node[key] = change(node[key]) if node[key].dim() else torch.ones(3)
        else:
            node[key] = draw(leaves)
    return tree


@pytest.mark.filterwarnings("ignore:The use of `x.T`")
@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_any_checkpoint_is_refused_in_one_line_or_can_be_gone_on_from(data, stopped, tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "run"
    shutil.copytree(stopped.folder, folder)
    torch.save(data.draw(changed(tree)), folder / "checkpoints" / "main.pt")
    try:
        Run.start(stopped.recipe, folder, resume=True).pretrain()
    except UserError as error:
        assert one_line(error)  # noqa: PT017 (it may well go through)
    shutil.rmtree(folder.parent)


@settings(max_examples=examples(60), deadline=None)
@given(data=st.data())
def test_any_checkpoint_can_be_evaluated_or_not_in_one_line(data, stopped, tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "run"
    shutil.copytree(stopped.folder, folder)
    finished = Tree(tree | {"epoch": 1, "step": 0, "totals": {}})
    torch.save(data.draw(changed(finished)), folder / "checkpoints" / "main.pt")
    try:
        run = Run.open(folder)
        run.trained_encoder(run.evaluated_stages[0])
    except UserError as error:
        assert one_line(error)  # noqa: PT017
    shutil.rmtree(folder.parent)


def copied(stopped: Run, folder: Path, **changes: Any) -> Path:
    """The run folder with another recipe."""
    shutil.copytree(stopped.folder, folder)
    whole = yaml.safe_load((folder / "recipe.yaml").read_text()) | changes
    (folder / "recipe.yaml").write_text(yaml.safe_dump(whole))
    return folder


@pytest.mark.parametrize("name", ["../outside", "a/b", "/etc/passwd", "..", "", "x\n", "a\0b", "x" * 101])
def test_a_name_of_a_stage_leads_nowhere_else(name, store):
    for place in ("stages", "representation"):
        whole = recipe_tree(store)
        if place == "stages":
            whole["stages"][0]["name"] = name
        else:
            whole["representation"] = {"stages": [name]}
        with pytest.raises(UserError) as error:
            Recipe.from_tree(whole, "recipe.yaml")
        assert one_line(error.value).startswith(f"recipe.yaml: {place}.")


@pytest.mark.parametrize("name", ["teacher-best", "teacher-epoch-0001"])
def test_stages_whose_checkpoints_would_lie_in_one_place(name, store):
    whole = recipe_tree(store, "fuse")
    whole["stages"][1]["name"] = name
    with pytest.raises(UserError, match=r"stages\.1\.name: checkpoints of stage 'teacher' are called so"):
        Recipe.from_tree(whole, "recipe.yaml")


def test_a_checkpoint_that_stands_beyond_its_epoch(stopped, tree, tmp_path):
    folder = copied(stopped, tmp_path / "run")
    torch.save(tree | {"step": 1000}, folder / "checkpoints" / "main.pt")
    with pytest.raises(UserError, match=r"main\.pt: stands at step 1000 of an epoch of 5"):
        Run.start(stopped.recipe, folder, resume=True).pretrain()


def test_weights_that_are_not_finite_are_not_evaluated(stopped, tree, tmp_path):
    folder = copied(stopped, tmp_path / "run")
    finished = copy.deepcopy(dict(tree)) | {"epoch": 1, "step": 0, "totals": {}}
    finished["pretext"]["encoder.norm.weight"][1] = torch.nan
    torch.save(finished, folder / "checkpoints" / "main.pt")
    with pytest.raises(UserError, match=r"main\.pt: norm\.weight is not finite"):
        evaluate(Run.open(folder), "knn")


def test_a_recipe_that_asks_for_more_weights_than_the_checkpoint_has(stopped, tree, tmp_path):
    encoder = stopped.recipe.encoder.to_tree() | {"hidden": 20_000}  # 5 GB of weights, were they made
    folder = copied(stopped, tmp_path / "run", encoder=encoder)
    torch.save(tree | {"epoch": 1, "step": 0, "totals": {}}, folder / "checkpoints" / "main.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError) as error:
        evaluate(Run.open(folder), "knn")
    assert one_line(error.value)
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < LITTLE


def test_links_in_a_run_folder_are_replaced_and_never_written_through(stopped, tmp_path):
    """Going on in a stranger's folder changes nothing outside of it."""
    folder, outside = copied(stopped, tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    for name in ("log.jsonl", "checkpoints/main.pt", "body.json"):
        target = outside / Path(name).name
        (folder / name).rename(target)
        (folder / name).symlink_to(target)
    before = {path: path.read_bytes() for path in outside.iterdir()}
    Run.start(stopped.recipe, folder, resume=True).pretrain()
    assert {path: path.read_bytes() for path in outside.iterdir()} == before
    assert load_checkpoint(folder / "checkpoints" / "main.pt", "main").epoch == 1
