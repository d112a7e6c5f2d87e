import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import refused
from commands import run as run_words
from tiny import recipe_tree, tiny_store

from ssl_skeleton import early as early_command
from ssl_skeleton import robustness as robustness_command
from ssl_skeleton.data.altered import beginnings, part_of, turned_about_vertical
from ssl_skeleton.data.recording import IMAGE
from ssl_skeleton.data.store import Store
from ssl_skeleton.data.views.normalise import NormaliseConfig
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig
from ssl_skeleton.evaluation.curves import curve_scores, curve_tables
from ssl_skeleton.evaluation.features import WHOLE, Look, raw_encoding
from ssl_skeleton.evaluation.linear import learn_linear
from ssl_skeleton.figures import curves
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs import showing
from ssl_skeleton.runs.probing import evaluate, representations
from ssl_skeleton.runs.run import Run
from ssl_skeleton.runs.showing import early, panels_of, robustness

SHARES = (0.3, 0.6, 1.0)
FEW = {
    "missing": [0.0, 0.5],
    "noise": [0.0, 0.3],
    "rotation": [0.0, 180.0],
    "dropped": [0.0, 0.75],
    "size": [0.0, 0.5],
    "tempo": [0.0, 0.8],
    "draws": 2,
}
SHORT = {
    "linear": {"epochs": 5, "rates": [0.03]},
    "knn": {"k": [1, 3]},
    "early": {"shares": list(SHARES)},
    "robustness": FEW,
}


@pytest.fixture
def painted() -> None:
    """For tests that want the pictures, which take longest."""


@pytest.fixture(autouse=True)
def _unpainted(request, monkeypatch):
    if "painted" not in request.fixturenames:
        monkeypatch.setattr(curves, "save_curves", lambda title, panels, path: None)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory) -> Path:
    """The folder of a finished run that sees positions and motion."""
    tree = recipe_tree(store, "reconstruct_two_streams", epochs=1)
    tree["evaluation"] = SHORT
    run = Run.start(Recipe.from_tree(tree, "recipe"), tmp_path_factory.mktemp("runs") / "run")
    run.pretrain()
    return run.folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A copy of it that was never evaluated."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def rows(result: dict) -> dict[str, dict]:
    return {"trained": result} | result["baselines"]


def written(folder: Path) -> set[str]:
    made = [path for name in ("eval", "figures") for path in (folder / name).glob("*")]
    return {str(path.relative_to(folder)) for path in made}


@pytest.mark.parametrize("probe", ["linear", "knn"])
@pytest.mark.parametrize("train", ["whole", "cut"])
def test_all_of_a_clip_scores_what_the_plain_probe_does(probe, train, folder):
    run = Run.open(folder, [f"evaluation.early.probe={probe}", f"evaluation.early.train={train}"])
    result = early(run)
    plain = evaluate(run, probe)
    assert list(result["baselines"]) == ["raw", "raw_streams", "untrained"]
    for name, scores in rows(result).items():
        wanted, curve = rows(plain)[name], scores["curves"]["seen"]
        for score in ("top1", "balanced", "per_class", "confusion", "predicted"):
            assert scores[score] == wanted[score]
        assert curve["levels"] == list(SHARES)
        assert (curve["top1"][-1], curve["interval"][-1]) == (wanted["top1"], wanted["interval"]["top1"])
        assert scores["area"] == curve["area"] == pytest.approx(np.mean(curve["top1"]))
        assert scores["interval"]["area"] == curve["area_interval"]


def on(run: Run, *stores: Store) -> Run:
    """The same run on other stores."""
    other = Run(run.folder, run.recipe)
    vars(other)["stores"] = stores
    return other


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_cut_training_clips_are_cut_as_test_clips_are(probe, folder):
    """Scores are then those of a store that holds no more, in both parts."""
    run = Run.open(folder, [f"evaluation.early.probe={probe}", "evaluation.early.train=cut"])
    result = early(run)
    for place, share in enumerate(SHARES):
        plain = evaluate(on(run, beginnings(run.store, share)), probe)
        for name in ("trained", "raw", "raw_streams"):  # the norms of `untrained` know whole training clips
            wanted, curve = rows(plain)[name], rows(result)[name]["curves"]["seen"]
            assert curve["top1"][place] == wanted["top1"]
            assert curve["balanced"][place] == wanted["balanced"]


@pytest.mark.parametrize("train", ["whole", "cut"])
def test_the_probe_learns_as_often_as_it_says(train, folder, monkeypatch):
    learned = []
    monkeypatch.setattr(
        showing, "learn_linear", lambda *given: learned.append(given[0].train) or learn_linear(*given)
    )
    early(Run.open(folder, [f"evaluation.early.train={train}"]))
    assert len(learned) == 4 * (1 if train == "whole" else len(SHARES))  # all of a clip is no cut
    robustness(Run.open(folder))
    assert len(learned) == 4 * (2 if train == "whole" else 1 + len(SHARES))


def test_results_and_pictures_of_other_protocols_lie_side_by_side(folder, painted):
    for override in ("early.probe=linear", "early.probe=knn", "early.train=cut", "linear={name: cmd}"):
        early(Run.open(folder, [f"evaluation.{override}", "evaluation.early.shares=[0.5]"]))
    curves = {key: [] for key in FEW if key != "draws"} | {"noise": [0.1]}
    robustness(Run.open(folder, [f"evaluation.robustness={json.dumps(curves)}"]))
    names = ("early", "early_knn", "early_cut", "early_cmd", "robustness")
    places = [(f"eval/{name}", "json") for name in names] + [(f"figures/{name}", "png") for name in names]
    found = {re.sub("(-store-cross_view)-.*(\\.\\w+)$", r"\1\2", name) for name in written(folder)}
    assert found == {f"{place}-store-cross_view.{end}" for place, end in places}


def poisoned(run: Run, share: float) -> Run:
    """The run, whose test clips are something else after that share of them."""
    store, (split,) = run.store, run.splits
    frames_rvc = np.array(store.frames_rvc)
    rng = np.random.default_rng(0)
    for clip, row, first, frames in store.tracks[np.isin(store.tracks[:, 0], split.test)]:
        late = row + max(1, round(share * int(store.lengths[clip]))) - first
        frames_rvc[late : row + frames] = rng.normal(scale=9, size=frames_rvc[late : row + frames].shape)
    return on(run, replace(store, frames_rvc=frames_rvc))


def test_what_comes_later_is_hidden(folder):
    run = Run.open(folder, ["evaluation.early.shares=[0.3, 0.5, 0.6]"])
    found, wanted = early(poisoned(run, 0.5)), early(run)
    for name, scores in rows(found).items():
        curve, right = scores["curves"]["seen"], rows(wanted)[name]["curves"]["seen"]
        assert curve["top1"][:2] == right["top1"][:2]
        assert curve["interval"][:2] == right["interval"][:2]
    assert any(scores["predicted"] != rows(wanted)[name]["predicted"] for name, scores in rows(found).items())


@pytest.mark.parametrize("probe", ["linear", "knn"])
def test_sound_clips_score_what_the_plain_probe_does(probe, folder):
    run = Run.open(folder, [f"evaluation.robustness.probe={probe}"])
    result = robustness(run)
    plain = evaluate(run, probe)
    for name, scores in rows(result).items():
        wanted = rows(plain)[name]
        assert scores["predicted"] == wanted["predicted"]
        assert list(scores["curves"]) == ["missing", "noise", "rotation", "dropped", "size", "tempo"]
        for curve in scores["curves"].values():
            assert (curve["top1"][0], curve["balanced"][0]) == (wanted["top1"], wanted["balanced"])
            assert (curve["interval"][0], curve["std"][0]) == (wanted["interval"]["top1"], 0.0)
            assert curve["draws"] == 2
    units = {name: curve["unit"] for name, curve in result["curves"].items()}
    others = {"noise": "metres", "rotation": "degrees"}
    assert units == dict.fromkeys(("missing", "dropped", "size", "tempo"), "share") | others


def test_every_representation_and_every_run_meets_the_same_damage(folder, monkeypatch):
    shown, pack = [], Run.pack

    def noted(run, stores):
        shown.append(stores[0].frames_rvc.copy())
        return pack(run, stores)

    run = Run.open(folder)
    _ = run.packed
    monkeypatch.setattr(Run, "pack", noted)
    robustness(run)
    first, shown[:] = list(shown), []
    other = Run(folder, run.recipe.model_copy(update={"seed": run.recipe.seed + 1}))
    vars(other)["packed"] = run.packed
    robustness(other)
    kinds = len(first) // 4
    assert len(first) == len(shown) == 4 * kinds == 4 * 6 * 2  # representations, kinds, draws
    for number, frames_rvc in enumerate([*first, *shown]):
        np.testing.assert_array_equal(frames_rvc, first[number % kinds])
    assert len({frames_rvc.tobytes() for frames_rvc in first}) == kinds


@pytest.mark.parametrize("score", [early, robustness])
def test_the_same_command_again_gives_the_same_file(score, folder):
    def made() -> bytes:
        result = score(Run.open(folder))
        return (folder / "eval" / f"{result['evaluator']}-store-cross_view.json").read_bytes()

    assert made() == made()


@pytest.mark.parametrize("score", [early, robustness])
def test_labels_of_test_clips_change_scores_alone(score, folder, monkeypatch):
    """Whatever they are, the same is answered, at every level."""
    answers: list[list] = []

    def answered(run: Run) -> dict:
        answers.append([])
        return score(run)

    def noted(levels, unit, scorers, labels):
        answers[-1] += [scorer(labels)["predicted"] for draws in scorers for scorer in draws]
        return curve_scores(levels, unit, scorers, labels)

    monkeypatch.setattr(showing, "curve_scores", noted)
    run = Run.open(folder)
    labels, (split,) = run.store.labels.copy(), run.splits
    labels[split.test] = (labels[split.test] + 1) % 3
    other = on(run, replace(run.store, columns=run.store.columns | {"label": labels}))
    found, wanted = answered(other), answered(run)
    assert answers[0] == answers[1]
    assert found["confusion"] != wanted["confusion"]


@pytest.mark.parametrize("frames", [6, None])
@pytest.mark.parametrize("residence", ["device", "host", "mapped"])
def test_sound_clips_by_themselves_are_the_same_to_the_bit(frames, residence, folder):
    run = Run.open(folder, [f"data.residence={residence}"])
    data = run.recipe.data.model_copy(update={"frames": frames})
    run = Run(run.folder, run.recipe.model_copy(update={"data": data}))
    split, index = run.splits[0], np.arange(len(run.splits[0].test))
    apart = Look(packed=run.pack([part_of(run.store, split.test)]))
    for make in representations(run).values():
        encode = make()
        np.testing.assert_array_equal(encode(index, apart), encode(split.test, WHOLE))


def test_there_may_be_more_clips_than_the_store_has(folder):
    run = Run.open(folder)
    few = run.pack([part_of(run.store, run.splits[0].test)])
    encode, plain = (raw_encoding(packed, run.recipe.data, ViewConfig()) for packed in (few, run.packed))
    every = np.arange(len(run.store))
    np.testing.assert_array_equal(encode(every, Look(packed=run.packed)), plain(every, WHOLE))


def test_a_turn_is_nothing_to_who_turns_clips_to_the_front(folder):
    """And much to who does not."""
    run = Run.open(folder)
    split, index = run.splits[0], np.arange(len(run.splits[0].test))
    part = part_of(run.store, split.test)
    turned = Look(packed=run.pack([turned_about_vertical(part, 180.0, np.random.default_rng(0))]))
    for make in representations(run).values():
        encode = make()
        found, wanted = encode(index, turned), encode(split.test, WHOLE)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    loose = SamplingConfig(normalise=NormaliseConfig(facing="none"))
    encode = raw_encoding(run.packed, loose, ViewConfig())
    assert np.abs(encode(index, turned) - encode(split.test, WHOLE)).max() > 0.3


def test_the_picture_shows_the_curves_of_the_result(folder, painted):
    told: list[str] = []
    result = robustness(Run.open(folder), tell=told.append)
    kept, picture = (Path(line.split(" in ")[-1].split(" to ")[-1]) for line in told)
    assert json.loads(kept.read_text()) == json.loads(json.dumps(result))
    assert picture.read_bytes().startswith(b"\x89PNG")
    panels = panels_of(result)
    assert [panel.axis for panel in panels] == [
        "joints missing (%)",
        "noise (cm)",
        "turned by up to (degrees)",
        "frames lost (%)",
        "larger or smaller by up to (%)",
        "faster and slower by up to (%)",
    ]
    assert [list(panel.levels) for panel in panels] == [[0, 50], [0, 30], [0, 180], [0, 75], [0, 50], [0, 80]]
    for panel, name in zip(panels, FEW, strict=False):
        names = ["trained", "raw coordinates", "raw joint+motion", "untrained encoder"]
        assert [line.name for line in panel.lines] == names
        for line, scores in zip(panel.lines, rows(result).values(), strict=True):
            curve = scores["curves"][name]
            assert (line.top1, line.interval) == (curve["top1"], curve["interval"])


@pytest.mark.parametrize(("command", "name"), [(early_command, "early"), (robustness_command, "robustness")])
def test_a_command_prints_its_tables_and_where_the_picture_is(command, name, folder, painted, capsys):
    assert run_words(command, "--run", folder, "--probe", "knn") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    result = json.loads((folder / f"eval/{name}_knn-store-cross_view.json").read_text())
    title, *rows = curve_tables(result, ("still", "slow", "fast")).splitlines()
    assert printed.out.startswith("\n".join([title, "clips: 18 training, 9 test", *rows]))
    assert f"\nwritten to {folder / 'eval' / name}_knn-store-cross_view" in printed.out
    picture = folder / f"figures/{name}_knn-store-cross_view.png"
    assert printed.out.endswith(f"\ndrawn in {picture}\n")
    assert picture.is_file()
    assert result["probe_protocol"]["k"] == [1, 3]
    assert result["protocol"]["probe"] == "knn"
    assert result["changed"]["probe"] == "knn"


@pytest.mark.parametrize(
    ("command", "override", "message"),
    [
        (early_command, "early.shares=[0.5, 1.5]", "evaluation.early.shares.1: "),
        (early_command, "early.shares=[0.5, 0.5]", "shares: 0.5 stands after 0.5"),
        (early_command, "early.share=[0.5]", "did you mean 'shares'?"),
        (robustness_command, "robustness.noise=[0.1, 0]", "noise: 0 stands after 0.1"),
        (robustness_command, "robustness.draw=1", "did you mean 'draws'?"),
    ],
)
def test_mistakes_are_one_line(command, override, message, folder, capsys):
    assert message in refused(capsys, command, "--run", folder, f"evaluation.{override}")
    assert not written(folder)


@pytest.mark.parametrize("command", [early_command, robustness_command])
def test_clips_without_labels_are_refused(command, folder, tmp_path, capsys):
    unlabelled = tiny_store(tmp_path / "unlabelled", labelled=False)
    error = refused(capsys, command, "--run", folder, f"data.store={unlabelled}")
    assert "no clip has a label" in error
    assert not written(folder)


@pytest.mark.parametrize("command", [early_command, robustness_command])
def test_a_probe_that_cannot_learn_is_refused_before_anything_is_encoded(
    command, folder, capsys, monkeypatch
):
    monkeypatch.setattr(showing, "representations", lambda run: pytest.fail("it was encoded"))
    words = ("--run", folder, "--probe", "knn", "evaluation.knn.k=[19]")
    assert "evaluation.knn.k: must lie in 1..18" in refused(capsys, command, *words)


@pytest.mark.parametrize("command", [early_command, robustness_command])
def test_a_run_that_is_not_trained_is_refused(command, folder, capsys):
    shutil.rmtree(folder / "checkpoints")
    assert "no such checkpoint" in refused(capsys, command, "--run", folder)


def test_clips_in_a_plane_are_not_turned_about_the_vertical(tmp_path, capsys):
    store = tiny_store(tmp_path / "plane", coordinates=IMAGE)
    tree = recipe_tree(store, "contrast", epochs=1)
    tree["data"]["normalise"] = {"center": "first_frame", "facing": "none"}
    tree["evaluation"] = SHORT
    run = Run.start(Recipe.from_tree(tree, "recipe"), tmp_path / "run")
    run.pretrain()
    error = refused(capsys, robustness_command, "--run", run.folder)
    assert "needs x, y and z, but the store has x, y, confidence" in error
    assert not written(run.folder)
    assert run_words(robustness_command, "--run", run.folder, "evaluation.robustness.rotation=[]") == 0
    assert "noise, as stored" in capsys.readouterr().out
