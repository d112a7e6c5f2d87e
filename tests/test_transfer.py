"""`transfer`: a run probed on other stores, whichever they are, or on none of them."""

import json
import shutil
from pathlib import Path

import commands
import pytest
from poisoning import poison_labels, set_labels, without_scores
from tiny import house_of_two_bodies, recipe_tree, tiny_recipe, tiny_store, unevaluated

from ssl_skeleton import transfer
from ssl_skeleton.cli import run_command
from ssl_skeleton.data.recording import IMAGE
from ssl_skeleton.data.store import open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run
from ssl_skeleton.runs.transferring import mapped, own_runs, target_runs
from ssl_skeleton.skeleton.layout import load_layout

BOTH = ("linear", "knn")


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    return house_of_two_bodies(tmp_path_factory.mktemp("house"), "v1", "v2")


@pytest.fixture
def fresh(house, tmp_path) -> Path:
    """The folder of a copy of the run that was never evaluated."""
    return unevaluated(house / "run", tmp_path / "run")


def written(folder: Path) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in (folder / "eval").glob("*")}


def refused(capsys, *words) -> str:
    return commands.refused(capsys, transfer, *words)


def test_every_result_is_that_of_the_probe_on_the_store(house, fresh, tmp_path, capsys):
    words = ["--run", str(fresh), "--to", f"{house / 'v2'}:cross_view", f"{house / 'v1'}:cross_view_dev"]
    assert run_command(transfer.main, words) == 0
    other = unevaluated(house / "run", tmp_path / "other")
    for store, split in (("v1", "cross_view"), ("v2", "cross_view"), ("v1", "cross_view_dev")):
        for probe in BOTH:
            evaluate(Run.open(other, [f"data.store={house / store}", f"data.split={split}"]), probe)
    results = written(fresh)
    assert results == written(other)
    assert {result["layout"] for result in results.values()} == {"kinect_v1_20"}
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith(("v1, ", "v2, "))]
    places = ["v1, cross_view (its own)", "v2, cross_view", "v1, cross_view_dev"]
    assert len(rows) == 6
    for row, (probe, place) in zip(rows, [(probe, place) for probe in BOTH for place in places], strict=True):
        name, split = place.removesuffix(" (its own)").split(", ")
        result = results[f"{probe}-{name}-{split}.json"]
        cells = []
        for scores in (result, result["baselines"]["raw"], result["baselines"]["untrained"]):
            top1, low, high = (100 * share for share in (scores["top1"], *scores["interval"]["top1"]))
            cells += [f"{top1:.1f}", f"({low:.1f}-{high:.1f})"]
        assert row.removeprefix(place).split() == cells
    told = [line.removeprefix("written to ") for line in lines if line.startswith("written to ")]
    assert [Path(line).name for line in told] == [
        f"{probe}-{place}.json"
        for place in ("v1-cross_view", "v2-cross_view", "v1-cross_view_dev")
        for probe in BOTH
    ]
    chosen = [line for line in lines if ": rate chosen on held-out training clips: trained " in line]
    assert len(chosen) == 3


def test_the_stores_own_row_comes_once_and_can_be_left_out(house, fresh, capsys):
    words = ["--run", str(fresh), "--probe", "knn", "--to"]
    assert run_command(transfer.main, [*words, str(house / "v1"), str(house / "v1")]) == 0
    assert capsys.readouterr().out.count("v1, cross_view") == 1
    assert run_command(transfer.main, [*words, str(house / "v2"), "evaluation.knn.k=[3]", "--no-own"]) == 0
    printed = capsys.readouterr().out
    assert "knn, k=3, top-1 in %, with 95 % intervals" in printed
    assert "linear" not in printed
    assert "its own" not in printed
    assert {name.split(".")[0].split("-k=")[0] for name in written(fresh)} == {
        "knn-v1-cross_view",
        "knn-v2-cross_view",
    }


def test_the_table_says_the_protocol_and_which_classes_cannot_be_known(house, fresh, tmp_path, capsys):
    store = tiny_store(tmp_path / "unseen")
    there = open_store(store)
    train = there.split("cross_view").train
    set_labels(store, dict.fromkeys(train[there.labels[train] == 2].tolist(), 0))
    words = ["--run", str(fresh), "--probe", "linear", "--no-own", "--to", str(store), "evaluation.clips=2"]
    assert run_command(transfer.main, words) == 0
    printed = capsys.readouterr().out
    assert "\nlinear_2_clips, top-1 in %" in printed
    assert f"\n{store}, split cross_view: no training clip shows fast\n" in printed
    assert f"\n{store}, split cross_view: rate chosen on held-out training clips: trained " in printed


def test_it_is_said_which_joints_are_mapped(house, fresh, capsys):
    assert run_command(transfer.main, ["--run", str(fresh), "--probe", "knn", "--to", str(house / "v2")]) == 0
    own, other = capsys.readouterr().out.splitlines()[:2]
    assert own == f"{house / 'v1'}, split cross_view: kinect_v1_20 as it is"
    assert other == (
        f"{house / 'v2'}, split cross_view: kinect_v2_25 seen as kinect_v1_20, 17 of 20 joints by their "
        "names; hip_center from base_spine, spine from mid_spine, shoulder_center from upper_spine"
    )


def test_joints_that_are_means_of_others():
    words = mapped(load_layout("coco_17"), load_layout("common_15"))
    assert "neck from left_shoulder and right_shoulder" in words or " and " in words
    assert mapped(load_layout("coco_17"), load_layout("coco_17")) == "coco_17 as it is"


def test_poisoned_test_labels_change_the_score_alone(house, fresh, tmp_path):
    store = Path(shutil.copytree(house / "v2", tmp_path / "store"))
    words = ["--run", str(fresh), "--no-own", "--to", str(store)]
    assert run_command(transfer.main, words) == 0
    plain = written(fresh)
    poison_labels(store, "cross_view")
    assert run_command(transfer.main, words) == 0
    poisoned = written(fresh)
    assert poisoned.keys() == plain.keys()
    for name, result in poisoned.items():
        kept = ("predicted", "rate")
        assert without_scores(result, kept) == without_scores(plain[name], kept)
        assert result["confusion"] != plain[name]["confusion"]


def broken(house: Path, folder: Path, kind: str) -> str:
    """A target that cannot be probed, of each kind."""
    if kind == "no store":
        return str(folder / "nowhere")
    if kind == "no split":
        return f"{house / 'v2'}:cross_vew"
    if kind == "no test part":
        return f"{house / 'v2'}:all"
    options = {
        "no labels": {"labelled": False},
        "too few joints": {"layout": "coco_17"},
        "other coordinates": {"coordinates": IMAGE},
    }
    store = tiny_store(folder / "broken", **options.get(kind, {}))
    if kind == "one class":
        set_labels(store, dict.fromkeys(open_store(store).split("cross_view").train.tolist(), 1))
    return str(store)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no store", "nowhere: no such folder; make a store with"),
        ("no split", "error: {house}/v2: nw_ucla has no split 'cross_vew'; did you mean 'cross_view'?"),
        ("no test part", "v2: split all: has no test part, which a probe needs"),
        ("no labels", "broken: split cross_view: no clip has a label"),
        ("too few joints", "broken: coco_17 cannot be turned into kinect_v1_20, since it lacks "),
        ("other coordinates", "broken: has x, y, confidence, but the run sees x, y, z; choose "),
        ("one class", "broken, split cross_view: the clips of the training part are all of one class"),
    ],
)
def test_a_target_that_cannot_be_probed_is_refused_before_anything_is_computed(
    kind, message, house, fresh, capsys
):
    target = broken(house, fresh.parent, kind)
    line = refused(capsys, "--run", fresh, "--to", house / "v2", target)
    assert message.format(house=house) in line
    assert not (fresh / "eval").exists()


def test_the_usual_k_are_those_that_a_small_gallery_has(house, fresh, capsys):
    words = [
        "--run",
        fresh,
        "--probe",
        "knn",
        "--no-own",
        "--to",
        house / "v2",
        "evaluation.knn.k=[1, 5, 10, 20]",
    ]
    assert run_command(transfer.main, [*map(str, words)]) == 0
    line = f"\n{house / 'v2'}, split cross_view: k=20 left out: the gallery has fewer clips\n"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation.knn.k=[19]"], "v2, split cross_view: evaluation.knn.k: must lie in 1..18"),
        (["data.store=x"], "'data.store=x': what it is probed on is said with --to STORE:SPLIT"),
        (["data.split=x"], "'data.split=x': what it is probed on is said with --to STORE:SPLIT"),
        (["seed=3"], "'seed=3': only evaluation., "),
        (["evaluation.kn.k=[3]"], "unknown key 'kn'; did you mean 'knn'?"),
        (["--probe", "kn"], "argument --probe: invalid choice: 'kn'"),
    ],
)
def test_mistakes_are_one_line(words, message, house, fresh, capsys):
    assert message in refused(capsys, "--run", fresh, "--to", house / "v2", *words)
    assert message in refused(capsys, *words, "--run", fresh, "--to", house / "v2")
    assert not (fresh / "eval").exists()


def test_a_run_that_was_not_trained(house, tmp_path, capsys):
    Run.start(tiny_recipe(house / "v1"), tmp_path / "run")
    assert "main.pt: no such checkpoint; train it" in refused(
        capsys, "--run", tmp_path / "run", "--to", house / "v2"
    )
    assert "nowhere: not a run" in refused(capsys, "--run", tmp_path / "nowhere", "--to", house / "v2")
    assert "are required: --to" in refused(capsys, "--run", tmp_path / "run")


def test_its_own_store_may_be_gone(house, tmp_path, capsys):
    store = tiny_store(tmp_path / "store")
    Run.start(tiny_recipe(store, epochs=1), tmp_path / "run").pretrain()
    shutil.rmtree(store)
    words = ["--run", str(tmp_path / "run"), "--probe", "knn", "--to", str(house / "v2")]
    assert run_command(transfer.main, words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"left out: {store}: no such folder")
    assert [line.split()[0] for line in lines[3:5]] == ["knn,", "v2,"]


def test_a_run_of_several_stores_has_a_row_for_each_that_can_be_probed(house, tmp_path):
    both = {"store": [str(house / "v1"), str(house / "v2")], "split": ["cross_view", "all"]}
    tree = recipe_tree(house / "v1", epochs=1)
    recipe = Recipe.from_tree(tree | {"data": {**tree["data"], **both, "layout": "common_15"}}, "recipe")
    run = Run.start(recipe, tmp_path / "run")
    run.pretrain()
    told: list[str] = []
    (own,) = own_runs(run.folder, [], BOTH, told.append)
    assert (own.store.path, own.splits[0].name) == (house / "v1", "cross_view")
    assert len(told) == 1
    assert told[0].startswith(f"left out: {house / 'v2'}: split all: has no test part")


def test_a_split_that_goes_without_saying(house, fresh, tmp_path):
    def split_of(target: Path | str) -> str:
        (found,) = target_runs(fresh, [str(target)], [], BOTH)
        return found.splits[0].name

    assert split_of(house / "v2") == "cross_view"  # as the run's own
    store = tiny_store(tmp_path / "a:b")
    assert split_of(store) == "cross_view"
    assert split_of(f"{store}:cross_view_dev") == "cross_view_dev"
    meta = json.loads((store / "meta.json").read_text())
    rule = meta["splits"]["cross_view"]
    for names, expected in ((["mine"], "mine"), (["mine", "yours"], None)):
        meta["splits"] = dict.fromkeys(names, rule)
        (store / "meta.json").write_text(json.dumps(meta))
        if expected:
            assert split_of(store) == expected
        else:
            with pytest.raises(UserError, match=r"say which split with .*:SPLIT; it has mine, yours"):
                split_of(store)


def test_stores_of_one_name_are_told_apart(house, fresh, tmp_path, capsys):
    store = shutil.copytree(house / "v2", tmp_path / "v1")
    assert run_command(transfer.main, ["--run", str(fresh), "--probe", "knn", "--to", str(store)]) == 0
    printed = capsys.readouterr().out
    assert f"\n{house / 'v1'}, cross_view (its own)" in printed
    assert f"\n{store}, cross_view" in printed
