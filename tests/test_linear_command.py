import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import commands
import numpy as np
import pytest
import yaml
from commands import run
from tiny import CAMERAS, CLASSES, REPETITIONS, recipe_tree, tiny_store

from ssl_skeleton import linear, pretrain
from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.evaluation.features import WHOLE, Features, Look, raw_encoding
from ssl_skeleton.evaluation.linear import learn_linear
from ssl_skeleton.runs import probing
from ssl_skeleton.runs.probing import windows
from ssl_skeleton.runs.run import Run


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A folder with a store and the finished runs/contrast."""
    house = tmp_path_factory.mktemp("house")
    store = tiny_store(house / "store")
    (house / "recipe.yaml").write_text(yaml.safe_dump(recipe_tree(store, epochs=1)))
    assert run(pretrain, "--cfg", house / "recipe.yaml", "--runs", house / "runs") == 0
    return house


@pytest.fixture
def scored(house, capsys) -> Callable:
    """Scores the run with more words; gives the result and what was printed."""

    def score(*words: str, store: str = "store") -> tuple[dict, str]:
        capsys.readouterr()
        folder = house / "runs" / "contrast"
        assert run(linear, "--run", folder, *words) == 0, capsys.readouterr().err
        printed = capsys.readouterr()
        assert printed.err == ""
        path = Path(printed.out.splitlines()[-1].removeprefix("written to "))
        assert path.name.startswith(f"{printed.out.split()[0]}-{store}-cross_view")
        assert path.parent == folder / "eval"
        return json.loads(path.read_text()), printed.out

    return score


def refused(capsys, house: Path, *words: str) -> str:
    return commands.refused(capsys, linear, "--run", house / "runs" / "contrast", *words)


def relabelled(house: Path, name: str, label: Callable[[int, int], int]) -> Path:
    """A copy of the store in which clips have the label that one of their camera and own label gets."""
    store = house / name
    shutil.copytree(house / "store", store)
    with (store / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == CLASSES * CAMERAS * REPETITIONS
    for row in rows:
        row["label"] = str(label(int(row["camera"]), int(row["label"])))
    with (store / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return store


def answers(result: dict) -> dict[str, tuple]:
    """What was decided, without the score of it."""
    kept = ("predicted", "rate", "strength")
    every = {"trained": result} | result["baselines"]
    return {name: tuple(scores.get(key) for key in kept) for name, scores in every.items()}


@pytest.mark.parametrize("protocol", ["tuned", "logistic"])
@pytest.mark.parametrize("clips", [1, 2])
def test_labels_of_test_clips_change_the_score_alone(protocol, clips, house, scored):
    words = ["--protocol", protocol, "--clips", str(clips)]
    honest, _ = scored(*words)
    store = relabelled(
        house, f"poisoned-{protocol}-{clips}", lambda camera, label: (label + (camera == 3)) % 3
    )
    poisoned, _ = scored(*words, f"data.store={store}", store=store.name)
    assert honest["clips"] == poisoned["clips"] == {"train": 18, "test": 9}
    assert answers(honest) == answers(poisoned)
    told, turned = ([each, *each["baselines"].values()] for each in (honest, poisoned))
    for scores, other in zip(told, turned, strict=True):
        assert other["confusion"] == [scores["confusion"][label - 1] for label in range(3)]
    assert any(scores["confusion"] != other["confusion"] for scores, other in zip(told, turned, strict=True))


def test_labels_of_training_clips_do_matter(house, scored):
    store = relabelled(house, "other", lambda camera, label: (label + (camera != 3)) % 3)
    assert answers(scored()[0]) != answers(scored(f"data.store={store}", store="other")[0])


def test_a_protocol_stands_in_result_and_table(scored):
    result, printed = scored("--protocol", "cmd")
    assert result["protocol"] == {
        "name": "cmd",
        "epochs": 80,
        "batch": 64,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": {"name": "step", "milestones": [50, 70], "factor": 0.1, "warmup": 0.0},
        "lr": 0.1,
    }
    assert (result["evaluator"], result["changed"]) == ("linear_cmd", {})
    assert result["rate"] == result["baselines"]["raw"]["rate"] == 0.1
    assert "\nprotocol cmd\n" in printed
    assert "windows" not in result


def test_what_is_changed_in_a_protocol_is_seen(scored):
    result, printed = scored("--protocol", "crrl", "evaluation.linear.epochs=3", "evaluation.linear.lr=0.5")
    assert result["protocol"]["epochs"] == 3
    assert result["changed"] == {"epochs": 3, "lr": 0.5}
    assert "\nprotocol crrl with epochs=3, lr=0.5\n" in printed
    _, printed = scored()
    assert "\nprotocol tuned with epochs=5\n" in printed  # as its recipe has it


def test_windows_stand_in_result_and_table(scored):
    result, printed = scored("--clips", "3", "evaluation.clip_share=0.75")
    assert result["windows"] == {"count": 3, "share": 0.75}
    assert "; class probabilities averaged over 3 windows of 75 % of a clip\n" in printed
    whole, _ = scored()
    again, _ = scored("--clips", "3", "evaluation.clip_share=1")
    assert answers(again) == answers(whole)
    assert "windows" not in whole


def test_no_protocol_takes_the_place_of_another(house, scored):
    names = {
        (): "linear",
        ("--protocol", "tuned"): "linear",
        ("--protocol", "aimclr", "evaluation.linear.epochs=2"): "linear_aimclr",
        ("--clips", "2"): "linear_2_clips",
        ("--protocol", "logistic", "--clips", "3"): "linear_logistic_3_clips",
    }
    for words, name in names.items():
        result, printed = scored(*words)
        assert result["evaluator"] == name
        assert printed.startswith(f"{name} on store, split cross_view")
    kept = {path.stem.split("-store-")[0] for path in (house / "runs" / "contrast" / "eval").iterdir()}
    assert {*names.values()} <= kept


def test_a_class_that_only_test_clips_show_is_told(house, scored):
    store = relabelled(house, "unseen", lambda camera, label: label if camera == 3 else min(label, 1))
    result, printed = scored(f"data.store={store}", store="unseen")
    assert result["unseen"] == result["baselines"]["raw"]["unseen"] == [2]
    assert result["per_class"][2] == 0
    assert "\nno training clip shows fast\n" in printed


def test_what_was_chosen_stands_below_the_table(scored):
    for protocol, name in (("tuned", "rate"), ("logistic", "strength")):
        result, printed = scored("--protocol", protocol)
        chosen = [result[name], *(scores[name] for scores in result["baselines"].values())]
        rows = ("trained", "raw coordinates", "untrained encoder")
        told = ", ".join(f"{row} {value:g}" for row, value in zip(rows, chosen, strict=True))
        assert f"\n{name} chosen on held-out training clips: {told}\n" in printed
        assert printed.splitlines()[1] == "clips: 18 training, 9 test"
    for words in (["--protocol", "cmd"], ["evaluation.linear.rates=[0.1]"]):
        assert "chosen" not in scored(*words)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "simclr"], "error: --protocol simclr: evaluation.linear: unknown name 'simclr'"),
        (["--clips", "0"], "error: --clips 0: evaluation.clips: "),
        (["--clips", "["], "error: --clips [: line 1: not valid YAML"),
        (["evaluation.linear.epochs=x"], "error: 'evaluation.linear.epochs=x': evaluation.linear.epochs: "),
        (
            ["--protocol", "cmd", "evaluation.linear={name: crrl}"],
            "error: --protocol cmd: 'evaluation.linear={name: crrl}' undoes it; give one of the two",
        ),
        (["--protocol", "cmd", "evaluation.linear.name=crrl"], "error: --protocol cmd: "),
        (["--clips", "3", "evaluation.clips=4"], "error: --clips 3: 'evaluation.clips=4' undoes it"),
        (["--run", "twice"], "error: argument --run: stands twice; give it once"),
        (["--runn", "x"], "error: unrecognized arguments: --runn; did you mean '--run'?"),
    ],
)
def test_a_mistake_is_told_as_it_was_typed(words, message, house, capsys):
    assert refused(capsys, house, *words).startswith(message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clips", "0"], "evaluation.clips: input should be greater than or equal to 1, not 0"),
        (["--clips", "few"], "evaluation.clips: input should be a valid integer, not 'few'"),
        (["evaluation.clip_share=0"], "evaluation.clip_share: input should be greater than 0, not 0"),
        (["--protocol", "crl"], "evaluation.linear: unknown name 'crl'; did you mean 'crrl'?"),
        (["--protocol", "crrl", "evaluation.linear.rate=1"], "evaluation.linear: unknown key 'rate'"),
        (["evaluation.linear.rates=[]"], "evaluation.linear.rates: "),
        (["evaluation.clip=3"], "evaluation: unknown key 'clip'; did you mean 'clips'?"),
    ],
)
def test_mistakes_are_refused_in_one_line(words, message, house, capsys):
    assert message in refused(capsys, house, *words)


def test_a_training_part_of_one_class_is_refused_before_anything_is_encoded(house, capsys, monkeypatch):
    monkeypatch.setattr(probing, "representations", lambda run: pytest.fail("it was encoded"))
    store = relabelled(house, "one", lambda camera, label: label if camera == 3 else 1)
    assert "are all of one class, but a linear probe needs two" in refused(
        capsys, house, f"data.store={store}"
    )


def test_windows_are_evenly_placed_from_the_first_place_to_the_last(house):
    folder = house / "runs" / "contrast"
    for clips, starts in ((1, []), (2, [0, 1]), (3, [0, 0.5, 1]), (5, [0, 0.25, 0.5, 0.75, 1])):
        found = windows(Run.open(folder, [f"evaluation.clips={clips}", "evaluation.clip_share=0.6"]))
        assert found == [(start, 0.6) for start in starts]


@pytest.mark.parametrize("clips", [2, 3])
def test_every_window_is_seen(clips, house, scored):
    """The mean over windows of what a probe answers for each by itself."""
    run = Run.open(house / "runs" / "contrast", [f"evaluation.clips={clips}"])
    config, split = run.recipe.evaluation.linear, run.splits[0]
    encode = raw_encoding(run.packed, run.recipe.data, ViewConfig())
    parts = [encode(split.train, WHOLE), run.packed.labels.numpy()[split.train]]
    mean_nc = np.zeros((9, 3))
    for place in range(clips):
        window = encode(split.test, Look((place / (clips - 1), 0.9)))
        features = Features(*parts, window)
        mean_nc += learn_linear(features, 3, config, 0).probabilities(features) / clips
    result, _ = scored("--clips", str(clips))
    assert result["baselines"]["raw"]["predicted"] == mean_nc.argmax(axis=1).tolist()
