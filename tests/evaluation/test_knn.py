import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.knn import KnnConfig, check_gallery, knn_probe, leave_one_out, vote
from ssl_skeleton.evaluation.neighbours.gallery import Gallery
from ssl_skeleton.evaluation.neighbours.rerank import ReciprocalConfig, reranked

CLASSES = 4


def truth(seed: int, test: int = 20) -> np.ndarray:
    """Labels of the test clips of `noise`."""
    return np.random.default_rng([seed, 1]).integers(CLASSES, size=test)


def noise(seed: int, train: int = 30, test: int = 20, dim: int = 5) -> Features:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(train + test, dim)).astype(np.float32) * rng.uniform(0.1, 9, (train + test, 1))
    rows, labels = rows.astype(np.float32), rng.integers(CLASSES, size=train)
    return Features(rows[:train], labels, rows[train:])


def cosine(one, other) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def vote_by_loops(features: Features, k: int) -> list[int]:
    """The majority of the k nearest; a tie goes to the class whose nearest is nearer."""
    answers = []
    for query in features.test.tolist():
        likeness = [cosine(query, row) for row in features.train.tolist()]
        nearest = sorted(range(len(likeness)), key=likeness.__getitem__, reverse=True)[:k]
        votes = [int(features.train_labels[row]) for row in nearest]
        answers.append(max(votes, key=lambda label: (votes.count(label), -votes.index(label))))
    return answers


def answers(features: Features, k: int) -> list[int]:
    labels = np.zeros(len(features.test), np.int64)
    return knn_probe(features, CLASSES, KnnConfig(k=(k,)))(labels)["predicted"]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 30])
def test_the_vote(k):
    for seed in range(5):
        features = noise(seed)
        assert answers(features, k) == vote_by_loops(features, k)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_it_agrees_with_scikit_learn(k):
    features = noise(7, train=100, test=50)
    if k > 1:  # two classes and an odd k: no ties
        features = Features(features.train, features.train_labels % 2, features.test)
    judge = KNeighborsClassifier(k, metric="cosine").fit(features.train, features.train_labels)
    assert answers(features, k) == judge.predict(features.test).tolist()
    scores = knn_probe(features, CLASSES, KnnConfig(k=(k,)))(truth(7, 50))
    assert scores["top1"] == pytest.approx(judge.score(features.test, truth(7, 50)))


def test_the_first_k_gives_the_headline():
    features = noise(3)
    scores = knn_probe(features, CLASSES, KnnConfig(k=(5, 1)))(truth(3))
    assert list(scores["k"]) == ["5", "1"]
    assert scores["top1"] == scores["k"]["5"]
    for k in (1, 5):
        expected = np.mean(np.array(vote_by_loops(features, k)) == truth(3))
        assert scores["k"][str(k)] == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3))
def test_only_directions_count(seed, scale):
    features = noise(seed)
    plain = Gallery(features.train).nearest(features.test, 5).rows
    scaled = Gallery(features.train * np.float32(scale)).nearest(features.test, 5).rows
    assert (plain == scaled).mean() > 0.99  # rounding may turn two near neighbours round


@pytest.mark.parametrize("k", [(31,), (1, 31), (0,), (5, -1)])
def test_an_impossible_k_is_refused(k):
    with pytest.raises(UserError, match=r"evaluation.knn.k: must lie in 1..30, the clips in the gallery"):
        knn_probe(noise(0), CLASSES, KnnConfig(k=k))


@given(st.integers(1, 40), st.booleans())
def test_of_the_usual_k_those_that_fit_are_left(gallery, alone):
    config, most = KnnConfig(leave_one_out=alone), gallery - alone
    fitting = tuple(k for k in KnnConfig().k if k <= most)
    if fitting:
        assert config.among(gallery) == KnnConfig(leave_one_out=alone, k=fitting)
    else:
        with pytest.raises(UserError, match=r"evaluation.knn.k: must lie in 1..0"):
            config.among(gallery)
    named = KnnConfig(k=(most, 1)) if most else KnnConfig(k=(1,))
    assert named.among(gallery).k == named.k
    with pytest.raises(
        UserError, match=rf"must lie in 1..{gallery}, .*; name such numbers alone, as .*=\[1\]"
    ):
        KnnConfig(k=(1, gallery + 1)).among(gallery)


def test_scores_are_given_for_the_k_that_are_left():
    features = noise(3, train=7)
    found = knn_probe(features, CLASSES, KnnConfig())(truth(3))
    wanted = knn_probe(features, CLASSES, KnnConfig(k=(1, 5)))(truth(3))
    assert found == wanted
    assert found["k"].keys() == {"1", "5"}


def test_one_k_is_a_list_of_one():
    assert KnnConfig.from_tree({"k": 3}, "knn") == KnnConfig(k=(3,))
    for wrong in (True, "3", 3.0, None):
        with pytest.raises(UserError, match=r"^knn: k: input should be a list"):
            KnnConfig.from_tree({"k": wrong}, "knn")


@given(st.integers(0, 2**31 - 1), st.integers(1, 4), st.booleans())
@settings(max_examples=30, deadline=None)
def test_leaving_one_out_is_asking_for_each_clip_among_the_others(seed, k, doubled):
    found = noise(seed, train=12)
    rows, labels = found.train, found.train_labels * 3  # labels need not follow one another
    if doubled:  # each clip six times: more of them than k + 1
        rows, labels = np.tile(rows[:2], (6, 1)), np.tile(labels[:2], 6)
    right = []
    for clip in range(len(rows)):
        others = np.arange(len(rows)) != clip
        one = Features(rows[others], labels[others], rows[clip : clip + 1])
        right.append(vote_by_loops(one, k) == [labels[clip]])
    assert leave_one_out(rows, labels, k) == pytest.approx(np.mean(right))


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("k", [1, 5, 20])
def test_votes_by_distance_agree_with_scikit_learn(k, temperature):
    features = noise(11, train=200, test=100)

    def weights(distance):
        return np.exp((1 - distance) / temperature)

    judge = KNeighborsClassifier(k, metric="cosine", weights=weights)
    judge.fit(features.train.astype(float), features.train_labels)
    config = KnnConfig(k=(k,), weights="distance", temperature=temperature)
    found = knn_probe(features, CLASSES, config)(truth(11, 100))
    assert found["predicted"] == judge.predict(features.test.astype(float)).tolist()
    if k > 1:
        assert found["predicted"] != answers(features, k)


def test_weights_of_a_low_temperature_are_numbers():
    features = noise(2)
    config = KnnConfig(k=(9,), weights="distance", temperature=1e-9)
    assert knn_probe(features, CLASSES, config)(truth(2))["predicted"] == answers(features, 1)


@given(st.integers(0, 2**31 - 1), st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_a_tie_goes_to_the_nearer_one(seed, k):
    rng = np.random.default_rng(seed)
    votes_nk, weights_nk = rng.integers(3, size=(5, k)), rng.choice([0.25, 0.5, 1], size=(5, k))
    for votes, weights, winner in zip(votes_nk, weights_nk, vote(votes_nk, weights_nk, 3), strict=True):
        sums = {c: sum(w for v, w in zip(votes, weights, strict=True) if v == c) for c in set(votes)}
        best = [c for c in sums if sums[c] == max(sums.values())]
        assert winner == min(best, key=votes.tolist().index)


@pytest.mark.parametrize("rerank", [False, True])
def test_leaving_one_out_scores_the_training_clips(rerank):
    features = noise(5)
    alone = Features(features.train, features.train_labels, features.train)
    config = KnnConfig(k=(3, 29), leave_one_out=True, rerank=rerank, reciprocal=ReciprocalConfig(own=1))
    scores = knn_probe(alone, CLASSES, config)(alone.train_labels)
    assert len(scores["predicted"]) == 30
    for k in (3, 29):
        assert scores["k"][str(k)] == leave_one_out(features.train, features.train_labels, k)
    with pytest.raises(UserError, match=r"evaluation.knn.k: must lie in 1..29"):
        knn_probe(alone, CLASSES, KnnConfig(k=(30,), leave_one_out=True))
    with pytest.raises(UserError, match=r"leave_one_out: is for the command knn alone"):
        knn_probe(features, CLASSES, config)


def test_re_ranked_neighbours_vote():
    features, config = noise(6, train=60), KnnConfig(k=(5,), rerank=True)
    found = knn_probe(features, CLASSES, config)(truth(6))
    rows = reranked(features.train, features.test, 5, ReciprocalConfig()).rows
    expected = vote(features.train_labels[rows], np.ones(rows.shape), CLASSES)
    assert found["predicted"] == expected.tolist() != answers(features, 5)
    assert found["rerank"] is True
    assert knn_probe(features, CLASSES, KnnConfig())(truth(6))["rerank"] is False


def test_an_index_tells_how_many_neighbours_it_finds(monkeypatch):
    features, labels = noise(4, train=400, test=90), truth(4, 90)

    def scores(**index):
        return knn_probe(features, CLASSES, KnnConfig.from_tree({"index": index}, "knn"))(labels)

    exact = scores(name="exact")
    assert "index_recall" not in exact
    whole = scores(name="ivf", nlist=10, nprobe=10)
    assert (whole["index_recall"], whole["index_queries"]) == ({"20": 1.0}, 90)
    assert whole["predicted"] == exact["predicted"]
    part = scores(name="ivf", nlist=40, nprobe=2)
    neighbours = [
        Gallery(features.train, index).nearest(features.test, 20).rows
        for index in (KnnConfig().index, KnnConfig.from_tree({"index": part_index()}, "knn").index)
    ]
    shares = [len(set(one) & set(other)) / 20 for one, other in zip(*neighbours, strict=True)]
    assert part["index_recall"]["20"] == pytest.approx(np.mean(shares))
    assert part["index_recall"]["20"] < 1
    monkeypatch.setattr("ssl_skeleton.evaluation.knn._SAMPLE", 10)
    assert scores(name="hnsw")["index_queries"] == 10


def part_index() -> dict:
    return {"name": "ivf", "nlist": 40, "nprobe": 2}


def test_more_cells_than_clips_are_refused():
    config = KnnConfig.from_tree({"index": {"name": "ivf", "nlist": 31}}, "knn")
    with pytest.raises(UserError, match=r"index.nlist: 31 cells are more than the 30 different rows"):
        knn_probe(noise(0), CLASSES, config)


def test_a_gallery_of_one_class_is_refused():
    features = noise(0)
    with pytest.raises(UserError, match="kNN: all clips in the gallery are of one class"):
        knn_probe(Features(features.train, np.zeros(30, np.int64), features.test), CLASSES, KnnConfig())
    check_gallery(np.array([0, 1]), "kNN")


@pytest.mark.parametrize(
    ("tree", "name"),
    [
        ({}, "knn"),
        ({"k": [3], "temperature": 0.1}, "knn"),
        ({"weights": "distance", "rerank": True}, "knn_distance_rerank"),
        ({"leave_one_out": True, "index": {"name": "ivf"}}, "knn_leave_one_out_ivf"),
    ],
)
def test_what_results_are_called(tree, name):
    assert KnnConfig.from_tree(tree, "knn").evaluator == name
