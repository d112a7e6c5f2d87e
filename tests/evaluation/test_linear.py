import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ssl_skeleton.evaluation import linear
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.linear import LinearConfig, linear_scores

CLASSES = 6
FAST = LinearConfig(epochs=20, batch=32)


def blobs(spread: float, clips: int = 180, dim: int = 8) -> Features:
    rng = np.random.default_rng(0)
    labels = np.arange(2 * clips) % CLASSES
    rows = rng.normal(size=(CLASSES, dim))[labels] + spread * rng.normal(size=(2 * clips, dim))
    rows = rows.astype(np.float32)
    return Features(rows[:clips], labels[:clips], rows[clips:], labels[clips:])


def ranking(features: Features, monkeypatch, seed=0) -> np.ndarray:
    given = []
    with monkeypatch.context() as patch:
        patch.setattr(linear, "classification_scores", lambda ranking, *_: given.append(ranking) or {})
        linear_scores(features, CLASSES, FAST, seed)
    return given[0]


def test_separable_classes_are_told_apart():
    scores = linear_scores(blobs(0.05), CLASSES, FAST, seed=0)
    assert scores["top1"] == scores["top5"] == 1.0
    assert scores["per_class"] == [1.0] * CLASSES


@pytest.mark.parametrize("standardise", [True, False])
def test_it_agrees_with_logistic_regression(standardise):
    features = blobs(0.7)
    judge = LogisticRegression(max_iter=1000).fit(features.train, features.train_labels)
    expected = judge.score(features.test, features.test_labels)
    config = FAST.model_copy(update={"standardise": standardise})
    assert 0.3 < expected < 0.95
    assert linear_scores(features, CLASSES, config, seed=0)["top1"] == pytest.approx(expected, abs=0.05)


def test_it_learns_nothing_from_labels_without_meaning():
    features = blobs(0.7)
    shuffled = np.random.default_rng(1).permutation(features.train_labels)
    poisoned = Features(features.train, shuffled, features.test, features.test_labels)
    assert linear_scores(poisoned, CLASSES, FAST, seed=0)["top1"] < 0.4


def test_standardised_features_have_no_scale(monkeypatch):
    features = blobs(0.7)
    scale = np.exp2(np.arange(-4, 4, dtype=np.float32))  # powers of two, which float arithmetic keeps exactly
    scaled = Features(
        features.train * scale, features.train_labels, features.test * scale, features.test_labels
    )
    assert np.array_equal(ranking(features, monkeypatch), ranking(scaled, monkeypatch))


def test_a_constant_feature_does_no_harm():
    features = blobs(0.05)
    train, test = (
        np.hstack([part, np.full((len(part), 1), 7.0, np.float32)])
        for part in (features.train, features.test)
    )
    scores = linear_scores(
        Features(train, features.train_labels, test, features.test_labels), CLASSES, FAST, 0
    )
    assert scores["top1"] == 1.0


def test_one_seed_gives_one_score(monkeypatch):
    features = blobs(0.7)
    assert linear_scores(features, CLASSES, FAST, 3) == linear_scores(features, CLASSES, FAST, 3)
    assert not np.array_equal(ranking(features, monkeypatch, 3), ranking(features, monkeypatch, 4))


def test_labels_of_the_test_part_change_no_answer(monkeypatch):
    features = blobs(0.7)
    poisoned = Features(
        features.train, features.train_labels, features.test, np.roll(features.test_labels, 1)
    )
    assert np.array_equal(ranking(features, monkeypatch), ranking(poisoned, monkeypatch))
    assert linear_scores(poisoned, CLASSES, FAST, 0) != linear_scores(features, CLASSES, FAST, 0)
