import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation import knn
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.knn import KnnConfig, knn_scores, leave_one_out, nearest_neighbours

CLASSES = 4


def noise(seed: int, train: int = 30, test: int = 20, dim: int = 5) -> Features:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(train + test, dim)).astype(np.float32) * rng.uniform(0.1, 9, (train + test, 1))
    rows, labels = rows.astype(np.float32), rng.integers(CLASSES, size=train + test)
    return Features(rows[:train], labels[:train], rows[train:], labels[train:])


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


def answers(features: Features, k: int, monkeypatch) -> list[int]:
    given = []
    with monkeypatch.context() as patch:
        patch.setattr(knn, "classification_scores", lambda ranking, *_: given.append(ranking) or {})
        knn_scores(features, CLASSES, KnnConfig(k=(k,)))
    return given[0][:, 0].tolist()


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7, 30])
def test_the_vote(k, monkeypatch):
    for seed in range(5):
        features = noise(seed)
        assert answers(features, k, monkeypatch) == vote_by_loops(features, k)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_it_agrees_with_scikit_learn(k, monkeypatch):
    features = noise(7, train=100, test=50)
    if k > 1:  # two classes and an odd k: no ties
        features = Features(
            features.train, features.train_labels % 2, features.test, features.test_labels % 2
        )
    judge = KNeighborsClassifier(k, metric="cosine").fit(features.train, features.train_labels)
    assert answers(features, k, monkeypatch) == judge.predict(features.test).tolist()
    scores = knn_scores(features, CLASSES, KnnConfig(k=(k,)))
    assert scores["top1"] == pytest.approx(judge.score(features.test, features.test_labels))


def test_the_first_k_gives_the_headline():
    features = noise(3)
    scores = knn_scores(features, CLASSES, KnnConfig(k=(5, 1)))
    assert list(scores["k"]) == ["5", "1"]
    assert scores["top1"] == scores["k"]["5"]
    for k in (1, 5):
        expected = np.mean(np.array(vote_by_loops(features, k)) == features.test_labels)
        assert scores["k"][str(k)] == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3))
def test_only_directions_count(seed, scale):
    features = noise(seed)
    plain = nearest_neighbours(features.train, features.test, 5)
    scaled = nearest_neighbours(features.train * np.float32(scale), features.test, 5)
    assert (plain == scaled).mean() > 0.99  # rounding may turn two near neighbours round


def test_the_features_are_left_as_they_are():
    features = noise(1)
    train, test = features.train.copy(), features.test.copy()
    nearest_neighbours(features.train, features.test, 3)
    assert np.array_equal(features.train, train)
    assert np.array_equal(features.test, test)


@pytest.mark.parametrize("k", [(31,), (1, 31), (0,), (5, -1)])
def test_an_impossible_k_is_refused(k):
    with pytest.raises(
        UserError, match=r"evaluation.knn.k: must lie in 1..30, the clips in the training part"
    ):
        knn_scores(noise(0), CLASSES, KnnConfig(k=k))


def test_labels_of_the_test_part_change_no_answer(monkeypatch):
    features = noise(0)
    poisoned = Features(features.train, features.train_labels, features.test, features.test_labels[::-1])
    assert answers(features, 5, monkeypatch) == answers(poisoned, 5, monkeypatch)


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
        one = Features(rows[others], labels[others], rows[clip : clip + 1], labels[clip : clip + 1])
        right.append(vote_by_loops(one, k) == [labels[clip]])
    assert leave_one_out(rows, labels, k) == pytest.approx(np.mean(right))
