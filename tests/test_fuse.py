"""`fuse`: runs of several streams, each scored alone and all together."""

import json
import shutil
from pathlib import Path

import commands
import numpy as np
import pytest
import yaml
from poisoning import poison_frames, poison_labels, set_labels, without_scores
from tiny import recipe_tree, tiny_store

from ssl_skeleton import fuse as fuse_command
from ssl_skeleton.cli import run_command
from ssl_skeleton.data.store import open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.linear import LinearAnswers
from ssl_skeleton.evaluation.scores import classification_scores
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs import fusing
from ssl_skeleton.runs.fusing import fuse, fusion_folder
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run

STREAMS = {"joint": ["joint"], "bone": ["bone"], "motion": ["motion", "joint"]}


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A store, and a run of each of some streams in `runs/`."""
    house = tmp_path_factory.mktemp("house")
    tree = recipe_tree(tiny_store(house / "store"), "reconstruct", epochs=1)
    for name, streams in STREAMS.items():
        seen = tree["stages"][0] | {
            "pretext": {"name": "sequence_reconstructor", "input": {"streams": streams}}
        }
        recipe = Recipe.from_tree(tree | {"name": name, "stages": [seen]}, "recipe")
        Run.start(recipe, house / "runs" / name).pretrain()
    return house


def runs(house: Path, *overrides: str, names=tuple(STREAMS)) -> list[Run]:
    return [Run.open(house / "runs" / name, overrides) for name in names]


@pytest.fixture(scope="module")
def result(house) -> dict:
    return fuse(runs(house, "evaluation.fuse.weights=[0.6, 0.6, 0.4]"), house / "fused")


def words(house: Path, *more: str, names=tuple(STREAMS)) -> list[str]:
    return ["--run", *(str(house / "runs" / name) for name in names), *more]


def test_a_result_holds_all_that_is_promised(house, result):
    path = house / "fused" / "eval" / "fuse_weighted-store-cross_view-weights=0.6,0.6,0.4.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    assert [file for file in (house / "fused").rglob("*") if file.is_file()] == [path]
    facts = {"evaluator": "fuse_weighted", "store": "store", "split": "cross_view", "epoch": 1, "seed": 0}
    assert facts.items() <= result.items()
    assert result["streams"] == ["joint", "bone", "motion"]
    assert [run["name"] for run in result["runs"]] == list(STREAMS)
    assert [run["streams"] for run in result["runs"]] == list(STREAMS.values())
    assert [run["folder"] for run in result["runs"]] == [str(run.folder) for run in runs(house)]
    assert [run["recipe"] for run in result["runs"]] == [run.recipe.to_tree() for run in runs(house)]
    assert result["overridden"] == {"weights": [0.6, 0.6, 0.4]}
    assert result["weights"] == [0.6, 0.6, 0.4]
    assert list(result["parts"]) == ["equal weights", "joint alone", "bone alone", "motion alone"]
    assert list(result["baselines"]) == ["raw", "raw_streams", "untrained"]
    for scores in (result, *result["parts"].values(), *result["baselines"].values()):
        assert {"top1", "balanced", "per_class", "confusion", "predicted", "weights"} <= scores.keys()
        assert len(scores["predicted"]) == 9
    assert "oracle" not in json.dumps(result)


def test_each_run_alone_is_its_linear_probe(house, result, tmp_path):
    for run in runs(house):
        folder = shutil.copytree(run.folder, tmp_path / run.folder.name)
        probe = evaluate(Run.open(folder), "linear")
        alone = result["parts"][f"{run.folder.name} alone"]
        for name in ("top1", "balanced", "confusion", "predicted"):
            assert alone[name] == probe[name], name
        if run.folder.name == "joint":
            for name in ("confusion", "predicted"):
                assert result["baselines"]["raw"][name] == probe["baselines"]["raw"][name]


def answered(monkeypatch) -> list[np.ndarray]:
    """The class probabilities that linear probes give from now on."""
    given, probabilities = [], LinearAnswers.probabilities

    def noted(*args):
        given.append(probabilities(*args))
        return given[-1]

    monkeypatch.setattr(LinearAnswers, "probabilities", noted)
    return given


def test_probabilities_are_fused_as_weighted(house, result, monkeypatch, tmp_path):
    given = answered(monkeypatch)
    assert fuse(runs(house, "evaluation.fuse.weights=[0.6, 0.6, 0.4]"), tmp_path) == result
    # Of each run the trained and the untrained encoder and its coordinates; positions are the same for all.
    assert len(given) == 3 * 2 + 1 + 2
    (trained, raw, untrained), (bone, raw_bone, other), (motion, raw_motion, last) = (
        given[:3],
        given[3:6],
        given[6:],
    )
    labels = runs(house)[0].store.labels[runs(house)[0].splits[0].test]
    for scores, weights, parts in (
        (result, (0.6, 0.6, 0.4), (trained, bone, motion)),
        (result["parts"]["equal weights"], (1, 1, 1), (trained, bone, motion)),
        (result["baselines"]["untrained"], (0.6, 0.6, 0.4), (untrained, other, last)),
        (result["baselines"]["raw_streams"], (0.6, 0.6, 0.4), (raw, raw_bone, raw_motion)),
        (result["baselines"]["raw"], (1,), (raw,)),
    ):
        total = sum(weight * part for weight, part in zip(weights, parts, strict=True))
        expected = classification_scores((-total).argsort(axis=1), labels, 3)
        assert {name: scores[name] for name in expected} == expected


def test_every_run_is_told_of(house, tmp_path):
    told = []

    def progress(names, total, what):
        for name in names:
            told.append((name, total, what))
            yield name

    fuse(runs(house, names=["joint", "bone"]), tmp_path, progress=progress)
    assert told == [("joint", 2, "fuse"), ("bone", 2, "fuse")]


def test_no_way_to_fuse_takes_the_place_of_another(house, tmp_path):
    ways = {
        "fuse": [],
        "fuse_weighted": ["evaluation.fuse.weights=[1.0, 2.0, 3.0]"],
        "fuse_chosen_accuracy_crrl_2_clips": ["evaluation.fuse.choose=accuracy", "evaluation.clips=2"],
    }
    endings = {"fuse_weighted": "-weights=1.0,2.0,3.0"}
    for name, how in ways.items():
        protocol = "{name: crrl, epochs: 2}" if "crrl" in name else "{epochs: 2}"
        found = fuse(runs(house, f"evaluation.linear={protocol}", *how), tmp_path)
        assert found["evaluator"] == name
        assert [one["epochs"] for one in found["probe_protocol"]] == [2, 2, 2]
    assert found["windows"] == {"count": 2, "share": 0.9}
    assert {path.name for path in (tmp_path / "eval").iterdir()} == {
        f"{name}-store-cross_view{endings.get(name, '')}-linear.epochs=2.json" for name in ways
    }


def test_fusions_of_other_runs_and_by_other_weights_lie_side_by_side(house, tmp_path):
    """The same again takes the place of what was there."""
    out = tmp_path / "out"
    for weights in ("[1.0, 2.0]", "[2.0, 1.0]", "[2.0, 1.0]"):
        fuse(runs(house, f"evaluation.fuse.weights={weights}", names=["joint", "bone"]), out)
    for names in (["joint", "bone"], ["joint", "motion"], ["bone", "joint"], ["joint", "bone"]):
        fuse(runs(house, names=names), out)
    kept = [json.loads(path.read_text()) for path in (out / "eval").iterdir()]
    assert sorted((one["weights"], [run["name"] for run in one["runs"]]) for one in kept) == [
        ([0.5, 0.5], ["bone", "joint"]),
        ([0.5, 0.5], ["joint", "bone"]),
        ([0.5, 0.5], ["joint", "motion"]),
        ([1.0, 2.0], ["joint", "bone"]),
        ([2.0, 1.0], ["joint", "bone"]),
    ]


def test_what_one_run_has_and_another_has_not_is_a_setting(house, tmp_path):
    other = shutil.copytree(house / "runs" / "bone", tmp_path / "bone")
    override = "evaluation.linear.epochs=6"
    (other / "recipe.yaml").write_text(
        (other / "recipe.yaml").read_text().replace("epochs: 5\n", "epochs: 6\n")
    )
    pair = [Run.open(other, [override]), *runs(house, override, names=["joint"])]
    assert fuse(pair, tmp_path / "out")["overridden"] == {"linear.epochs": 6}


def test_fused_runs_that_see_the_same_have_no_raw_streams(house, tmp_path):
    copied = shutil.copytree(house / "runs" / "joint", tmp_path / "copy")
    found = fuse([*runs(house, names=["joint"]), Run.open(copied)], tmp_path / "out")
    assert list(found["baselines"]) == ["raw", "untrained"]
    assert found["predicted"] == found["parts"]["joint alone"]["predicted"]  # a copy changes nothing
    assert list(found["parts"]) == ["joint alone", "copy alone"]  # the weights are equal already


@pytest.mark.parametrize("how", ["weights=[0.6, 0.6, 0.4]", "choose=log_likelihood", "choose=accuracy"])
def test_poisoned_test_labels_change_the_score_alone(how, house, tmp_path):
    store = Path(shutil.copytree(house / "store", tmp_path / "store"))
    overrides = [f"data.store={store}", f"evaluation.fuse.{how}"]
    plain = fuse(runs(house, *overrides), tmp_path / "out")
    poison_labels(store, "cross_view")
    poisoned = fuse(runs(house, *overrides), tmp_path / "out")
    kept = ("predicted", "weights")
    assert without_scores(poisoned, kept) == without_scores(plain, kept)
    assert poisoned["confusion"] != plain["confusion"]


def test_chosen_weights_see_no_test_clip(house, tmp_path):
    store = Path(shutil.copytree(house / "store", tmp_path / "store"))
    overrides = [f"data.store={store}", "evaluation.fuse.choose=log_likelihood"]
    plain = fuse(runs(house, *overrides), tmp_path / "out")
    poison_frames(store, "cross_view")
    poisoned = fuse(runs(house, *overrides), tmp_path / "out")
    assert without_scores(poisoned, ("weights",)) == without_scores(plain, ("weights",))
    assert without_scores(poisoned, ("predicted",)) != without_scores(plain, ("predicted",))
    assert plain["clips"]["choosing"] == 4
    weights = {tuple(scores["weights"]) for scores in (plain, *plain["baselines"].values())}
    assert len(weights) > 1  # each is weighed by itself


def test_a_validation_part_chooses(house, tmp_path, monkeypatch):
    store = Path(shutil.copytree(house / "store", tmp_path / "store"))
    meta = json.loads((store / "meta.json").read_text())
    meta["splits"]["cross_view"] |= {"train": [1], "validation": [2]}
    (store / "meta.json").write_text(json.dumps(meta))
    given = answered(monkeypatch)
    found = fuse(runs(house, f"data.store={store}", "evaluation.fuse.choose=accuracy"), tmp_path / "out")
    assert found["clips"] == {"train": 9, "validation": 9, "test": 9, "choosing": 9}
    assert len(given) == 2 * 9


def test_the_command(house, capsys, tmp_path):
    assert run_command(fuse_command.main, words(house, "--weights", "1", "0", "0", "device=cpu")) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["fuse_weighted", "on", "store,"]
    assert lines[1] == ["clips:", "18", "training,", "9", "test"]
    assert lines[2] == ["protocol", "tuned"]
    assert lines[3] == ["weights:", "joint", "1,", "bone", "0,", "motion", "0"]
    rows = {
        " ".join(line[:2]): line[2:]
        for line in lines[4:]
        if line and line[0] in ("joint", "raw", "untrained,")
    }
    (fused,) = [line[1:] for line in lines if line[:1] == ["fused"]]
    assert rows["joint alone"] == fused  # the first one's weight is 1
    assert {"raw coordinates", "untrained, fused", "raw joint+bone+motion,"} <= rows.keys()
    out = house / "runs" / "fused" / "joint+bone+motion"
    path = out / "eval" / "fuse_weighted-store-cross_view-weights=1.0,0.0,0.0.json"
    assert lines[-1] == ["written", "to", str(path)]
    assert path.is_file()
    kept = json.loads(path.read_text())["parts"]
    rates = ", ".join(f"{name} {kept[f'{name} alone']['rate']:g}" for name in STREAMS)
    assert " ".join(lines[-2]) == f"rate chosen on held-out training clips: {rates}"
    more = ["--choose", "--out", str(tmp_path / "out"), "evaluation.fuse.steps=4"]
    assert run_command(fuse_command.main, [*words(house)[1:], *more]) == 0  # without --run
    assert ", chosen by log_likelihood on 4 clips held out\n" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "eval" / "fuse_chosen-store-cross_view-steps=4.json").read_text())
    assert found["protocol"]["steps"] == 4
    assert [weight for weight in found["weights"] if weight not in (1 / 3, 0, 0.25, 0.5, 0.75, 1)] == []


def test_how_runs_were_probed_is_told(house, capsys, tmp_path):
    """As the linear command does: the protocol of each, the strengths or rates where there are several."""
    other = shutil.copytree(house / "runs" / "bone", tmp_path / "bone")
    tree = yaml.safe_load((other / "recipe.yaml").read_text())
    tree["evaluation"]["linear"] = {"name": "cmd", "epochs": 2}
    (other / "recipe.yaml").write_text(yaml.safe_dump(tree))
    pair = [str(house / "runs" / "joint"), str(other)]
    assert run_command(fuse_command.main, [*pair, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "\nprotocol tuned+cmd\n" in printed
    (line,) = [line for line in printed.splitlines() if " chosen on " in line]
    assert line.startswith("rate chosen on held-out training clips: joint ")
    assert "bone" not in line  # whose protocol has one rate
    more = ["evaluation.linear={name: logistic, iterations: 50}", "--choose", "--out", str(tmp_path / "more")]
    assert run_command(fuse_command.main, [*pair, *more]) == 0
    printed = capsys.readouterr().out
    assert (
        "\nclips: 18 training, 9 test, 4 choosing\nprotocol logistic with iterations=50\nweights: " in printed
    )
    assert "strength chosen on held-out training clips: joint " in printed


def test_places_are_told_as_they_were_typed(house, capsys, monkeypatch):
    monkeypatch.chdir(house)
    assert run_command(fuse_command.main, ["runs/joint", "runs/bone"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "written to runs/fused/joint+bone/eval/fuse-store-cross_view.json"
    assert (house / last.removeprefix("written to ")).is_file()
    assert "error: runs/joint: stands twice" in refused(capsys, "runs/joint", "runs/bone", "runs/joint")
    monkeypatch.chdir(house / "runs" / "joint")
    place = fusion_folder([Run.open(Path()), Run.open(Path("../bone"))])
    assert place == (house / "runs").resolve() / "fused" / "joint+bone"


def refused(capsys, *words: str) -> str:
    return commands.refused(capsys, fuse_command, *words)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--weights", "0.6", "0.4"], "evaluation.fuse.weights: 2 for 3 runs; give one for each, in order"),
        (["--weights", "0", "0", "0"], "evaluation.fuse: weights: at least one should be above 0"),
        (["--weights", "1", "-1", "1"], "evaluation.fuse.weights.1: "),
        (["--weights", "1", "x", "1"], "evaluation.fuse.weights.1: "),
        (["--weights", "1", "1", "1", "--choose"], "not allowed with argument"),
        (["evaluation.fuse.choose=acuracy"], "did you mean 'accuracy'?"),
        (["evaluation.fuse.wights=[1, 1, 1]"], "unknown key 'wights'; did you mean 'weights'?"),
        (["evaluation.knn.k=3"], "'evaluation.knn.k=3': fuse reads evaluation.fuse, evaluation.linear"),
        (["data.split=all"], "split all: has no test part"),
        (["data.split=cross_vew"], "did you mean 'cross_view'?"),
        (["--choose", "evaluation.fuse.steps=1000"], "evaluation.fuse.steps: 1000 are 501501 ways"),
        (
            ["--choose", "evaluation.fuse.held_out=0.99"],
            "held_out: 0.99 of 18 clips leaves none to learn from",
        ),
        (
            ["--choose", "evaluation.fuse.held_out=0.95"],
            "held_out: 0.95 of 18 clips leaves 1 to learn from, of one class; take a smaller share",
        ),
    ],
)
def test_mistakes_are_one_line(more, message, house, capsys, tmp_path):
    assert message in refused(capsys, *words(house, "--out", str(tmp_path / "out"), *more))
    assert not (tmp_path / "out").exists()


def test_too_few_clips_to_choose_by_are_refused_before_anything_is_encoded(house, tmp_path, monkeypatch):
    monkeypatch.setattr(fusing, "representations", lambda run: pytest.fail("it was encoded"))
    choosing = ["evaluation.fuse.choose=accuracy", "evaluation.fuse.held_out=0.95"]
    with pytest.raises(UserError, match="leaves 1 to learn from, of one class"):
        fuse(runs(house, *choosing), tmp_path / "out")


def test_a_training_part_of_one_class(house, tmp_path, monkeypatch):
    store = shutil.copytree(house / "store", tmp_path / "store")
    set_labels(store, dict.fromkeys(open_store(store).split("cross_view").train.tolist(), 1))
    monkeypatch.setattr(fusing, "representations", lambda run: pytest.fail("it was encoded"))
    with pytest.raises(UserError, match="are all of one class, but a linear probe needs two"):
        fuse(runs(house, f"data.store={store}"), tmp_path / "out")


def test_fewer_than_two_runs(house, capsys):
    assert "a fusion takes two runs or more" in refused(capsys, *words(house, names=["joint"]))
    assert "a fusion takes two runs or more" in refused(capsys, "--choose")
    assert "joint: stands twice; name every run once" in refused(capsys, *words(house, names=["joint"] * 2))
    assert "nowhere: not a run" in refused(capsys, *words(house), "nowhere")


def test_a_file_is_no_place_for_results(house, capsys):
    file = house / "store" / "meta.json"
    line = refused(capsys, *words(house, "--out", str(file)))
    assert f"{file}: is no folder; name another one with --out" in line


def test_a_run_that_was_not_trained_is_missed_before_anything_is_computed(house, tmp_path, monkeypatch):
    given = answered(monkeypatch)
    Run.start(runs(house, names=["bone"])[0].recipe, tmp_path / "bone")
    with pytest.raises(
        UserError, match=r"main\.pt: no such checkpoint; .*finetune --from-scratch keeps none"
    ):
        fuse([*runs(house, names=["joint"]), Run.open(tmp_path / "bone")], tmp_path / "out")
    assert not given


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("stores", r"joint and .*bone have different stores \(.*store; .*other\); name one store and split"),
        ("classes", r"have different classes \(still, slow, fast; still, slow, quick\)"),
        ("splits", r"have different splits \(cross_view; cross_view_dev\)"),
        ("clips", r"have different clips \(18 train, 9 test; 9 train, 18 test\)"),
    ],
)
def test_runs_that_do_not_go_together(what, message, house, tmp_path):
    other, split = tmp_path / "other", "cross_view"
    if what == "stores":
        tiny_store(other, bodies=2)
    elif what == "splits":
        split = "cross_view_dev"
        shutil.copytree(house / "store", other)
    else:
        shutil.copytree(house / "store", other)
        meta = json.loads((other / "meta.json").read_text())
        if what == "classes":
            meta["classes"] = ["still", "slow", "quick"]
        else:
            meta["splits"]["cross_view"] |= {"train": [1], "test": [2, 3]}
        (other / "meta.json").write_text(json.dumps(meta))
    overrides = [f"data.store={other}", f"data.split={split}"]
    pair = [*runs(house, names=["joint"]), *runs(house, *overrides, names=["bone"])]
    with pytest.raises(UserError, match=message):
        fuse(pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_copy_of_the_store_is_the_same_store(house, result, tmp_path):
    other = shutil.copytree(house / "store", tmp_path / "moved")
    weights = "evaluation.fuse.weights=[0.6, 0.6, 0.4]"
    rest = runs(house, weights, f"data.store={other}", names=["bone", "motion"])
    found = fuse([*runs(house, weights, names=["joint"]), *rest], tmp_path / "out")
    assert found["predicted"] == result["predicted"]


def test_where_fusions_are_kept(house, tmp_path):
    pair = runs(house, names=["joint", "bone"])
    assert fusion_folder(pair) == house / "runs" / "fused" / "joint+bone"
    again = [shutil.copytree(house / "runs" / "joint", tmp_path / place / "joint") for place in "ab"]
    places = {fusion_folder([pair[0], Run.open(folder)]) for folder in again}
    assert len(places) == 2  # of one name, but other runs
    long = [shutil.copytree(house / "runs" / "joint", tmp_path / (letter * 99)) for letter in "cde"]
    assert len(fusion_folder([Run.open(folder) for folder in long]).name) < 120
