"""`retrieve`, and `knn` where each clip is left out in turn: what they score, write and refuse."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import refused, run
from poisoning import poison_labels, set_labels
from tiny import CLIPS, house_of_two_bodies, tiny_store, unevaluated

from ssl_skeleton import knn, retrieve
from ssl_skeleton.data.recording import IMAGE
from ssl_skeleton.evaluation import retrieval
from ssl_skeleton.evaluation.features import WHOLE, Features
from ssl_skeleton.evaluation.knn import leave_one_out
from ssl_skeleton.evaluation.retrieval import RetrieveConfig, retrieval_probe
from ssl_skeleton.runs.probing import representations
from ssl_skeleton.runs.retrieving import open_collection, same_classes
from ssl_skeleton.runs.run import Run

ROWS = ("trained", "raw coordinates", "untrained encoder")


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    return house_of_two_bodies(tmp_path_factory.mktemp("house"), "store", "other")


@pytest.fixture
def fresh(house, tmp_path) -> Path:
    """The folder of a copy of the run that was never evaluated."""
    return unevaluated(house / "run", tmp_path / "run")


def written(folder: Path, name: str) -> dict:
    (path,) = (folder / "eval").glob(f"{name}*.json")  # what is overridden may end the name
    return json.loads(path.read_text())


def rename_classes(store: Path, out: Path, names: list[str]) -> Path:
    """A copy of a store whose classes are called otherwise."""
    shutil.copytree(store, out)
    meta = json.loads((out / "meta.json").read_text())
    (out / "meta.json").write_text(json.dumps(meta | {"classes": names}))
    return out


def features(folder: Path, name: str, index: np.ndarray, look=WHOLE) -> np.ndarray:
    return representations(Run.open(folder))[name]()(index, look)


def test_test_clips_look_in_the_training_part(fresh, capsys):
    assert run(retrieve, "--run", fresh, "evaluation.retrieve.k=[1, 7]") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("retrieve on store, split cross_view, in %")
    assert "9 queries" in printed
    for part in (*ROWS, "mAP", "recall@1", "recall@7", "precision@7"):
        assert part in printed, part
    result = written(fresh, "retrieve-store-cross_view")
    split, labels = Run.open(fresh).splits[0], Run.open(fresh).store.labels
    for name, scores in ({"trained": result} | result["baselines"]).items():
        gallery, queries = (features(fresh, name, part) for part in (split.train, split.test))
        cosine = (queries @ gallery.T) / np.linalg.norm(gallery, axis=1)
        nearest = labels[split.train][cosine.argsort(axis=1)[:, ::-1]]
        right = nearest == labels[split.test][:, None]
        share = right.cumsum(axis=1) / np.arange(1, 19)
        assert scores["map"] == pytest.approx((share * right).sum(axis=1).mean() / 6, abs=1e-6)
        assert scores["recall"]["7"] == right[:, :7].any(axis=1).mean()
        assert scores["precision"]["7"] == pytest.approx(right[:, :7].mean())


def test_another_store_is_seen_with_the_joints_of_the_run(house, fresh, capsys):
    words = ["--run", fresh, "--gallery", house / "other", "--gallery-split", "all"]
    assert run(retrieve, *words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"gallery {house / 'other'}, split all: 3 shared classes (still, slow, fast)\n")
    assert all(row in printed for row in ROWS)
    result = written(fresh, "retrieve_in_other_all-store-cross_view")
    assert result["clips"] == {"gallery": CLIPS, "test": 9}
    assert (result["layout"], result["gallery"]["split"]) == ("kinect_v1_20", "all")
    assert result["gallery"]["store_path"] == str((house / "other").resolve())
    opened = Run.open(fresh, [f"data.store={house / 'other'}", "data.split=all"])
    own = Run.open(fresh)
    test = own.splits[0].test
    for name in ("trained", "raw"):
        gallery = representations(opened)[name]()(np.arange(CLIPS), WHOLE)
        queries = representations(own)[name]()(test, WHOLE)
        expected = retrieval_probe(Features(gallery, opened.store.labels, queries), 3, RetrieveConfig())
        found = ({"trained": result} | result["baselines"])[name]
        assert json.loads(json.dumps(expected(own.store.labels[test]))).items() <= found.items()


def test_how_many_clips_are_looked_among_is_told(house, fresh, capsys):
    told = {
        (retrieve,): "clips: 18 training (the gallery), 9 test",
        (
            retrieve,
            "--gallery",
            house / "other",
            "--gallery-split",
            "all",
        ): "clips: 27 in the gallery, 9 test",
        (knn,): "clips: 18 training (the gallery), 9 test",
        (
            knn,
            "data.split=all",
            "evaluation.knn.leave_one_out=true",
        ): "leave-one-out: every one of 27 training clips among the other ones",
    }
    for (command, *words), line in told.items():
        assert run(command, "--run", fresh, *words) == 0
        printed = capsys.readouterr().out.splitlines()
        assert line in printed[1:3]
        path = Path(printed[-1].removeprefix("written to "))
        assert path.parent == fresh / "eval"
        assert json.loads(path.read_text())["evaluator"] == path.name.split("-")[0]


def test_the_usual_k_are_those_that_a_small_gallery_has(fresh, capsys):
    assert run(knn, "--run", fresh, "evaluation.knn.k=[1, 5, 10, 20]") == 0
    printed = capsys.readouterr().out
    assert "\nk=20 left out: the gallery has fewer clips\n" in printed
    assert written(fresh, "knn-store-cross_view")["k"].keys() == {"1", "5", "10"}
    shutil.rmtree(fresh / "eval")
    assert run(knn, "--run", fresh, "evaluation.knn.k=3") == 0
    assert "left out" not in capsys.readouterr().out
    assert written(fresh, "knn-store-cross_view")["k"].keys() == {"3"}
    assert run(retrieve, "--run", fresh, "data.split=cross_view_dev", "evaluation.retrieve.k=[1, 5, 10]") == 0
    assert "\nk=10 left out: the gallery has fewer clips\n" in capsys.readouterr().out  # it has 9
    found = written(fresh, "retrieve-store-cross_view_dev")
    assert found["recall"].keys() == {"1", "5"}


def test_a_gallery_is_by_default_the_same_split_or_all(house, fresh):
    own = Run.open(fresh)
    assert open_collection(own, house / "other", None).run.splits[0].name == "cross_view"
    everything = Run.open(fresh, ["data.split=cross_view_dev", "evaluation.retrieve.k=[9]"])
    assert open_collection(everything, house / "other", None).run.splits[0].name == "cross_view_dev"


def test_looking_in_the_own_store_is_looking_in_its_training_part(house, fresh):
    assert run(retrieve, "--run", fresh) == 0
    assert run(retrieve, "--run", fresh, "--gallery", house / "store") == 0
    plain = written(fresh, "retrieve-store-cross_view")
    found = written(fresh, "retrieve_in_store_cross_view-store-cross_view")
    for name in ("map", "recall", "precision", "interval", "baselines"):
        assert found[name] == plain[name]


def test_classes_are_the_same_by_their_names(house, fresh, tmp_path, capsys):
    assert same_classes(["Stand Up", "sit-down", "x"], ["sit_down", "standup"]).tolist() == [1, 0, -1]
    other = rename_classes(house / "store", tmp_path / "renamed", ["FAST", "jump", "S-till"])
    assert run(retrieve, "--run", fresh, "--gallery", other, "evaluation.retrieve.k=[1]") == 0
    printed = capsys.readouterr().out
    assert "2 shared classes (still, fast); 6 of its 18 clips are of other classes" in printed
    assert "6 queries, 3 left out whose class the gallery lacks" in printed
    result = written(fresh, "retrieve_in_renamed_cross_view-store-cross_view")
    assert result["gallery"]["shared_classes"] == ["still", "fast"]
    assert (result["queries"], result["left_out"]) == (6, 3)
    split, labels = Run.open(fresh).splits[0], Run.open(fresh).store.labels
    gallery, queries = (features(fresh, "trained", part) for part in (split.train, split.test))
    renamed = np.array([2, -1, 0])[labels[split.train]]
    cosine = (queries @ gallery.T) / np.linalg.norm(gallery, axis=1)
    first = renamed[cosine.argmax(axis=1)] == labels[split.test]
    assert result["recall"]["1"] == first[labels[split.test] != 1].mean()


def test_labels_of_test_clips_change_the_score_alone(house, fresh, tmp_path, monkeypatch):
    answers, rank = [], retrieval.rank_classes
    monkeypatch.setattr(retrieval, "rank_classes", lambda *given: answers.append(rank(*given)) or answers[-1])
    assert run(retrieve, "--run", fresh, "evaluation.retrieve.k=[2]") == 0
    honest = written(fresh, "retrieve-store-cross_view")
    store = Path(shutil.copytree(house / "store", tmp_path / "poisoned"))
    poison_labels(store, "cross_view")
    assert run(retrieve, "--run", fresh, "evaluation.retrieve.k=[2]", f"data.store={store}") == 0
    poisoned = written(fresh, "retrieve-poisoned-cross_view")
    assert len(answers) == 6
    for one, other in zip(answers[:3], answers[3:], strict=True):
        assert np.array_equal(one.average, other.average)
        assert np.array_equal(one.hits[2], other.hits[2])
    assert honest["map"] != poisoned["map"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["evaluation.retrieve.k=[19]"],
            "evaluation.retrieve.k: must lie in 1..18, the clips in the gallery",
        ),
        (["evaluation.retrieve.kk=[1]"], "unknown key 'kk'; did you mean 'k'?"),
        (["--gallery", "nowhere"], "make a store with: python -m ssl_skeleton.prepare"),
        (["--gallery", ""], "argument --gallery: names no file or folder"),
        (["--gallery-split", "all"], "--gallery-split: goes with --gallery STORE"),
        (["--gallery", "{house}/other", "--gallery-split", "al"], "has no split 'al'; did you mean 'all'?"),
        (
            ["--gallery", "{house}/other", "evaluation.retrieve.k=[19]"],
            "evaluation.retrieve.k: must lie in 1..18",
        ),
        (
            ["--gallery", "{house}/store", "--gallery-split", "all"],
            "store: 9 clips in the gallery, the training part of split all, are asked about too",
        ),
        (["data.split=all"], "split all: has no test part"),
    ],
)
def test_mistakes(words, message, house, fresh, capsys):
    given = [word.format(house=house) for word in words]
    assert message in refused(capsys, retrieve, "--run", fresh, *given)
    assert not (fresh / "eval").exists()


def test_galleries_that_cannot_be_searched(house, fresh, tmp_path, capsys):
    strange = rename_classes(house / "store", tmp_path / "strange", ["run", "jump", "swim"])
    error = refused(capsys, retrieve, "--run", fresh, "--gallery", strange)
    assert f"{strange}: none of its classes in the gallery (run, jump, swim) is one of" in error
    blank = tiny_store(tmp_path / "blank", labelled=False)
    assert "no clip has a label" in refused(capsys, retrieve, "--run", fresh, "--gallery", blank)
    flat = tiny_store(tmp_path / "flat", coordinates=IMAGE)
    assert "but the run sees" in refused(capsys, retrieve, "--run", fresh, "--gallery", flat)
    one = Path(shutil.copytree(house / "store", tmp_path / "one"))
    set_labels(one, dict.fromkeys(range(CLIPS), 1))
    line = refused(capsys, retrieve, "--run", fresh, "--gallery", one)
    assert "retrieval: all clips in the gallery are of one class" in line
    assert not (fresh / "eval").exists()


def test_a_split_without_a_test_part_is_scored_clip_by_clip(fresh, capsys):
    words = ["--run", fresh, "data.split=all", "evaluation.knn.leave_one_out=true", "evaluation.knn.k=[1, 3]"]
    assert run(knn, *words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("knn_leave_one_out on store, split all")
    assert "re-ranking off" in printed.splitlines()[0]
    assert all(row in printed for row in ROWS)
    result = written(fresh, "knn_leave_one_out-store-all")
    assert result["clips"] == {"train": CLIPS}
    labels = Run.open(fresh).store.labels
    for name, scores in ({"trained": result} | result["baselines"]).items():
        rows = features(fresh, name, np.arange(CLIPS))
        assert scores["k"] == {str(k): leave_one_out(rows, labels, k) for k in (1, 3)}


def test_ways_to_vote_are_overrides(fresh, capsys):
    words = ["--run", fresh, "evaluation.knn.weights=distance", "evaluation.knn.rerank=true"]
    assert run(knn, *words, "evaluation.knn.index={name: ivf, nlist: 4, nprobe: 1}") == 0
    printed = capsys.readouterr().out
    assert "re-ranking on" in printed.splitlines()[0]
    assert "index recall@3" in printed
    assert "the index compared with an exact one on 9 clips" in printed
    result = written(fresh, "knn_distance_rerank_ivf-store-cross_view")
    assert result["rerank"] is True
    assert result["protocol"]["index"] == {"name": "ivf", "nlist": 4, "nprobe": 1}
    assert {"index_recall", "index_queries"} <= result["baselines"]["raw"].keys()


def test_poisoned_labels_leave_the_votes_as_they_are(house, fresh, tmp_path):
    store = Path(shutil.copytree(house / "store", tmp_path / "poisoned"))
    poison_labels(store, "cross_view")
    words = ["evaluation.knn.rerank=true", "evaluation.knn.weights=distance"]
    assert run(knn, "--run", fresh, *words) == run(knn, "--run", fresh, *words, f"data.store={store}") == 0
    honest, poisoned = (
        written(fresh, f"knn_distance_rerank-{name}-cross_view") for name in ("store", "poisoned")
    )
    for one, other in zip(*map(every_score, (honest, poisoned)), strict=True):
        assert one["predicted"] == other["predicted"]
    assert honest["top1"] != poisoned["top1"]


def every_score(result: dict) -> list[dict]:
    return [result, *result["baselines"].values()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluation.knn.index={name: ivf, nlist: 19}"], "index.nlist: 19 cells are more than the 18"),
        (["evaluation.knn.index={name: flat}"], "evaluation.knn.index: unknown name 'flat'"),
        (
            ["evaluation.knn.leave_one_out=true", "evaluation.knn.k=[18]"],
            "evaluation.knn.k: must lie in 1..17",
        ),
        (["evaluation.knn.index.name=hnsw", "evaluation.knn.k=[19]"], "evaluation.knn.k: must lie in 1..18"),
        (["evaluation.knn.weights=near"], "evaluation.knn.weights: 'near' is not possible"),
        (["evaluation.knn.temperature=0"], "evaluation.knn.temperature: "),
    ],
)
def test_mistakes_at_knn(words, message, fresh, capsys):
    assert message in refused(capsys, knn, "--run", fresh, *words)
    assert not (fresh / "eval").exists()
