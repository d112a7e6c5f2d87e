"""`cluster` from a run to its result."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from poisoning import poison_labels, set_labels, without_scores
from tiny import tiny_recipe, tiny_store

from ssl_skeleton import cluster
from ssl_skeleton.cli import run_command
from ssl_skeleton.data.store import open_store
from ssl_skeleton.evaluation import clustering
from ssl_skeleton.evaluation.clustering import ClusterConfig
from ssl_skeleton.evaluation.features import WHOLE
from ssl_skeleton.runs.probing import evaluate, representations
from ssl_skeleton.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A finished run on a store of three classes."""
    house = tmp_path_factory.mktemp("house")
    run = Run.start(tiny_recipe(tiny_store(house / "store"), epochs=1), house / "run")
    run.pretrain()
    return run


def test_a_result_holds_all_that_is_promised(run):
    result = evaluate(run, "cluster")
    path = run.folder / "eval" / "cluster-store-cross_view.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(result))
    assert (result["evaluator"], result["split"], result["epoch"], result["seed"]) == (
        "cluster",
        "cross_view",
        1,
        0,
    )
    assert result["protocol"] == run.recipe.evaluation.cluster.to_tree()
    assert result["baselines"].keys() == {"raw", "untrained"}
    for scores in (result, *result["baselines"].values()):
        assert {"accuracy", "nmi", "ari", "purity", "inertia"} <= scores.keys()
        assert (scores["clusters"], len(scores["assigned"])) == (3, 9)
    assert evaluate(Run.open(run.folder), "cluster") == result


def test_unit_features_of_the_part_are_clustered(run, monkeypatch):
    seen, k_means = [], clustering.k_means

    def noted(rows_nd, *args):
        seen.append(rows_nd)
        return k_means(rows_nd, *args)

    monkeypatch.setattr(clustering, "k_means", noted)
    evaluate(run, "cluster")
    assert len(seen) == 3
    for rows_nd, encode in zip(seen, representations(run).values(), strict=True):
        expected = encode()(run.splits[0].test, WHOLE)
        expected /= (expected**2).sum(axis=1, keepdims=True) ** 0.5
        assert abs(rows_nd - expected).max() < 1e-5


def test_poisoned_test_labels_change_the_score_alone(run, tmp_path):
    store = Path(shutil.copytree(run.store.path, tmp_path / "store"))
    plain = evaluate(Run.open(run.folder, [f"data.store={store}"]), "cluster")
    poison_labels(store, "cross_view")
    poisoned = evaluate(Run.open(run.folder, [f"data.store={store}"]), "cluster")
    kept = ("assigned", "inertia", "clusters")
    assert without_scores(poisoned, kept) == without_scores(plain, kept)
    assert poisoned["nmi"] != plain["nmi"]


def test_the_command(run, capsys):
    assert run_command(cluster.main, ["--run", str(run.folder), "--clusters", "5", "--part", "all"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["clips:", "18", "training,", "9", "test"]
    assert lines[2:4] == [["5", "clusters", "of", "27", "clips"], ["accuracy", "NMI", "ARI", "purity"]]
    assert [line[0] for line in lines[4:7]] == ["trained", "raw", "untrained"]
    assert lines[8][:2] == ["written", "to"]
    assert Path(lines[8][2]).parent == run.folder / "eval"


@pytest.mark.parametrize("part", ["all", "train"])
def test_a_split_needs_no_test_part_where_that_is_not_clustered(part, run):
    found = evaluate(Run.open(run.folder, ["data.split=all", f"evaluation.cluster.part={part}"]), "cluster")
    assert found["clips"] == {"train": 27}
    rows, labels = representations(run)["trained"]()(np.arange(27), WHOLE), run.store.labels
    expected = clustering.cluster_probe(rows, 3, ClusterConfig(), run.recipe.seed)(labels)
    assert expected.items() <= found.items()


@pytest.mark.parametrize(
    ("part", "clips"),
    [
        ("test", {"test": 9}),
        ("train", {"train": 9}),
        ("all", {"train": 9, "test": 9}),
    ],
)
def test_the_clips_of_the_part_alone_need_labels_and_are_told(part, clips, run, tmp_path):
    store = Path(shutil.copytree(run.store.path, tmp_path / "store"))
    split = run.store.split("cross_view_dev")
    inside = {"all": [*split.train, *split.test]}.get(part, getattr(split, part, None))
    others = sorted({*range(27)} - {*map(int, inside)})
    set_labels(store, dict.fromkeys(others, -1))
    how = [f"data.store={store}", "data.split=cross_view_dev", f"evaluation.cluster.part={part}"]
    found = evaluate(Run.open(run.folder, how), "cluster")
    assert found["clips"] == clips
    assert len(found["assigned"]) == sum(clips.values())


def test_other_clips_and_other_clusters_have_results_of_their_own(run):
    names = {"cluster": [], "cluster_train": ["part=train"], "cluster_all_5": ["part=all", "clusters=5"]}
    for name, how in names.items():
        found = evaluate(Run.open(run.folder, [f"evaluation.cluster.{one}" for one in how]), "cluster")
        assert found["evaluator"] == name
        assert (run.folder / "eval" / f"{name}-store-cross_view.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clusters", "10"], "evaluation.cluster.clusters: 10 of 9 clips (evaluation.cluster.part: test)"),
        (["--clusters", "1"], "evaluation.cluster.clusters: "),
        (["--part", "tset"], "evaluation.cluster.part: 'tset' is not possible; did you mean 'test'?"),
        (["evaluation.cluster.cluster=3"], "unknown key 'cluster'; did you mean 'clusters'?"),
        (
            ["data.split=all"],
            "split all: has no test part; choose another data.split, or evaluation.cluster.",
        ),
    ],
)
def test_mistakes_are_one_line(words, message, run, capsys):
    assert run_command(cluster.main, ["--run", str(run.folder), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_store_without_labels(run, tmp_path, capsys):
    store = tiny_store(tmp_path / "store", labelled=False)
    assert run_command(cluster.main, ["--run", str(run.folder), f"data.store={store}"]) == 2
    assert "split cross_view: no clip has a label" in capsys.readouterr().err


def test_test_clips_of_one_class(run, tmp_path, capsys):
    store = Path(shutil.copytree(run.store.path, tmp_path / "store"))
    set_labels(store, dict.fromkeys(open_store(store).split("cross_view").test.tolist(), 2))
    assert run_command(cluster.main, ["--run", str(run.folder), f"data.store={store}"]) == 2
    assert "the 9 clips of 'test' are of one class, with which" in capsys.readouterr().err
