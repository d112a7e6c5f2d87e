"""Runs on several stores at once, on other joints, and evaluated on another store."""

import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml
from builders import one_line
from hypothesis import given
from hypothesis import strategies as st
from tiny import recipe_tree, same, tiny_recipe, tiny_store

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import IMAGE
from ssl_skeleton.data.repair import RepairConfig
from ssl_skeleton.errors import Stopped, UserError
from ssl_skeleton.pretext.base import Pretext
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run
from ssl_skeleton.skeleton.layout import load_layout
from ssl_skeleton.training.batches import epoch_order
from ssl_skeleton.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, str]:
    """A store of each of two bodies."""
    folder = tmp_path_factory.mktemp("stores")
    return {
        "v1": str(tiny_store(folder / "v1")),
        "v2": str(tiny_store(folder / "v2", layout="kinect_v2_25")),
    }


def recipe(data: dict, pretext: str = "contrast") -> Recipe:
    tree = recipe_tree(Path("unused"), pretext, epochs=1)
    return Recipe.from_tree(tree | {"data": tree["data"] | data}, "recipe")


@pytest.fixture(scope="module")
def run(stores, tmp_path_factory) -> Run:
    """A finished run on both stores."""
    both = {"store": list(stores.values()), "split": ["cross_view", "all"], "layout": "common_15"}
    run = Run.start(recipe({**both, "balance": "balanced"}, "fuse"), tmp_path_factory.mktemp("runs") / "both")
    run.pretrain()
    return run


def test_several_stores_are_trained_on_with_common_joints(run, stores):
    assert run.packed.layout == load_layout("common_15")
    assert [part.tolist() for part in run.training_clips] == [
        run.stores[0].split("cross_view").train.tolist(),
        [27 + clip for clip in range(27)],
    ]
    assert yaml.safe_load((run.folder / "recipe.yaml").read_text())["data"]["store"] == list(stores.values())


@pytest.mark.parametrize("name", ["v1", "v2"])
@pytest.mark.parametrize("evaluator", ["linear", "knn"])
def test_it_is_evaluated_on_one_of_them_or_another(run, stores, name, evaluator):
    opened = Run.open(run.folder, [f"data.store={stores[name]}", "data.split=cross_view"])
    assert opened.packed.layout == load_layout("common_15")
    result = evaluate(opened, evaluator)
    assert (result["store"], result["clips"]) == (name, {"train": 18, "test": 9})


def test_which_one_must_be_said(run):
    with pytest.raises(UserError, match=r"learned from 2 stores; say which one.*data\.store=STORE") as caught:
        evaluate(Run.open(run.folder), "knn")
    one_line(caught.value)


@pytest.mark.parametrize("more", [[], ["data.split=[cross_view, all]"]])
def test_the_split_of_one_store_must_be_said(more, run, stores):
    with pytest.raises(UserError) as caught:
        Run.open(run.folder, [f"data.store={stores['v1']}", *more])
    line = one_line(caught.value)
    assert line.startswith(f"{stores['v1']}: say which split to evaluate on with data.split=NAME; it has ")
    assert {"cross_view", "all"} <= set(line.split(" has ")[1].split(", "))


def test_a_split_without_test_clips_cannot_be_scored(run, stores):
    with pytest.raises(UserError, match="split all: has no test part"):
        evaluate(Run.open(run.folder, [f"data.store={stores['v1']}", "data.split=all"]), "knn")


def test_a_store_with_other_joints_is_seen_with_those_of_the_run(stores, tmp_path):
    """An encoder of 20 joints sees a body of 25; there is no way back, since a wrist has no thumb."""
    run = Run.start(recipe({"store": stores["v1"]}), tmp_path / "v1")
    run.pretrain()
    other = Run.open(run.folder, [f"data.store={stores['v2']}"])
    assert other.layout == load_layout("kinect_v1_20")
    assert 0 <= evaluate(other, "knn")["top1"] <= 1
    run = Run.start(recipe({"store": stores["v2"]}), tmp_path / "v2")
    run.pretrain()
    with pytest.raises(UserError, match="kinect_v1_20 cannot be turned into kinect_v2_25"):
        evaluate(Run.open(run.folder, [f"data.store={stores['v1']}"]), "knn")


def test_a_layout_file_of_ones_own(stores, tmp_path, monkeypatch):
    tree = load_layout("common_15").to_tree() | {"name": "mine"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(tmp_path)
    run = Run.start(recipe({"store": stores["v1"], "layout": "mine.yaml"}), tmp_path / "run")
    monkeypatch.chdir(tmp_path.parent)
    again = Run.open(run.folder)
    assert again.recipe.data.layout == str(tmp_path / "mine.yaml")
    (tmp_path / "mine.yaml").unlink()  # the run folder keeps what it needs
    assert again.layout.name == "mine"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"store": []}, "store: name at least one"),
        (
            {"store": ["a", "b"], "split": ["all"]},
            "split: 1 names for 2 stores; give one for each, or one for all, as in data.split=NAME",
        ),
        ({"store": ["a", "a"]}, "store: one stands twice"),
        ({"store": ["a", "b", "a"]}, "store: one stands twice"),
        ({"balance": "even"}, "data.balance: 'even' is not possible"),
        ({"repair": {"smooth": 4}}, "smooth"),
    ],
)
def test_mistakes_in_the_data_are_named(data, message):
    with pytest.raises(UserError) as caught:
        recipe(data)
    assert message in one_line(caught.value)


def test_a_view_that_the_store_cannot_give_is_refused_before_training(tmp_path):
    store = tiny_store(tmp_path / "store", layout="coco_17")
    Run.start(tiny_recipe(store), tmp_path / "run")  # 17 joints in space are well
    flat = tiny_store(tmp_path / "flat", layout="coco_17", coordinates=IMAGE)
    with pytest.raises(
        UserError, match=r"data\.normalise\.facing: needs x, y and z, but the store has x, y, "
    ):
        Run.start(tiny_recipe(flat), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    Run.start(recipe({"store": str(flat), "normalise": {"facing": "none"}}), tmp_path / "other")


@pytest.mark.parametrize(("balance", "shares"), [("proportional", (18, 27)), ("balanced", (23, 22))])
def test_an_epoch_draws_from_the_stores_as_the_recipe_says(balance, shares, stores, tmp_path, monkeypatch):
    seen, forward = [], Pretext.forward

    def noted(self, views):
        seen.extend(views["input"].index.tolist())
        return forward(self, views)

    monkeypatch.setattr(Pretext, "forward", noted)
    both = {"store": list(stores.values()), "split": ["cross_view", "all"], "layout": "common_15"}
    run = Run.start(recipe({**both, "balance": balance}), tmp_path / "run")
    run.pretrain()
    parts = [set(part.tolist()) for part in run.training_clips]
    assert tuple(sum(clip in part for clip in seen) for part in parts) == shares
    assert len(seen) == 45


def test_recordings_are_repaired_as_the_recipe_says(stores, tmp_path):
    mend = RepairConfig(smooth=5)
    run = Run.start(recipe({"store": stores["v1"], "repair": mend.to_tree()}), tmp_path / "run")
    store = run.store
    mended, plain = PackedClips(store, 1, mend=mend).frames.x_rvc, PackedClips(store, 1).frames.x_rvc
    assert torch.equal(run.packed.frames.x_rvc, mended)
    assert not torch.equal(mended, plain)
    bare = Run.start(recipe({"store": stores["v1"]}), tmp_path / "bare")
    assert torch.equal(bare.packed.frames.x_rvc, plain)


@pytest.mark.parametrize("step", [5, 12 + 7])  # of the teacher, of the student
def test_going_on_with_several_stores_gives_the_unbroken_run(step, run, tmp_path):
    forward, steps = Pretext.forward, []

    def counted(self, views):
        steps.append(1)
        if len(steps) == step:
            signal.raise_signal(signal.SIGTERM)
        return forward(self, views)

    broken = Run.start(run.recipe, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretext, "forward", counted)
        with pytest.raises(Stopped):
            broken.pretrain()
    again = Run.start(run.recipe, broken.folder, resume=True)
    again.pretrain()
    for stage in ("teacher", "main"):
        one, other = (
            load_checkpoint(at.folder / "checkpoints" / f"{stage}.pt", stage) for at in (run, again)
        )
        assert same(vars(one), vars(other)), stage


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 99))
def test_an_epoch_draws_every_clip_once_or_equally_many_of_each_store(sizes, seed):
    parts, begin = [], 0
    for size in sizes:
        parts.append(torch.arange(begin, begin + size))
        begin += size

    def drawn(*, balanced: bool) -> list[int]:
        return epoch_order(parts, torch.Generator().manual_seed(seed), balanced=balanced).tolist()

    assert sorted(drawn(balanced=False)) == list(range(begin))
    order = drawn(balanced=True)
    assert len(order) == begin
    times = Counter(order)
    shares = [sum(times[clip] for clip in part.tolist()) for part in parts]
    assert max(shares) - min(shares) <= 1
    for part in parts:
        counts = [times[clip] for clip in part.tolist()]
        assert max(counts) - min(counts) <= 1
