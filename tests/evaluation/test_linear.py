from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from ssl_skeleton.errors import UserError
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


def test_it_agrees_with_logistic_regression():
    features = blobs(0.7)
    judge = LogisticRegression(max_iter=1000).fit(features.train, features.train_labels)
    expected = judge.score(features.test, features.test_labels)
    assert 0.3 < expected < 0.95
    assert linear_scores(features, CLASSES, FAST, seed=0)["top1"] == pytest.approx(expected, abs=0.05)


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


def changed(config: LinearConfig, **values) -> LinearConfig:
    return LinearConfig.from_tree(config.to_tree() | values, "linear")


@pytest.mark.parametrize("seed", [0, 1])
def test_the_chosen_rate_alone_gives_the_same_scores(seed):
    features = blobs(0.7)
    scores = linear_scores(features, CLASSES, FAST, seed)
    assert scores["rate"] in FAST.rates
    alone = changed(FAST, rates=[scores["rate"]])
    assert linear_scores(features, CLASSES, alone, seed) == scores


@pytest.mark.parametrize("rates", [[1e-6, 0.03], [0.03, 1e-6], [1e-7, 1e-6, 0.03, 1e-8]])
def test_the_rate_that_learns_is_chosen(rates):
    config = changed(FAST, rates=rates, epochs=10)
    features = blobs(0.4)
    every = [linear_scores(features, CLASSES, changed(config, rates=[rate]), 0)["top1"] for rate in rates]
    scores = linear_scores(features, CLASSES, config, 0)
    assert scores["rate"] == rates[int(np.argmax(every))]


def test_of_equal_rates_the_first_is_chosen():
    features = blobs(0.01)
    for rates in ([0.03, 0.01], [0.01, 0.03]):
        assert linear_scores(features, CLASSES, changed(FAST, rates=rates), 0)["rate"] == rates[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_rate_never_depends_on_the_test_part(seed):
    features = blobs(1.2)
    config = changed(FAST, rates=[0.3, 0.1, 0.03, 0.01, 0.003, 0.001])
    rate = linear_scores(features, CLASSES, config, seed)["rate"]
    rng = np.random.default_rng(seed)
    for test in (-9 * features.test, rng.normal(size=features.test.shape).astype(np.float32)):
        labels = rng.permutation(features.test_labels)
        poisoned = Features(features.train, features.train_labels, test, labels)
        assert linear_scores(poisoned, CLASSES, config, seed)["rate"] == rate


def test_the_rate_is_chosen_on_clips_that_it_was_not_trained_on(monkeypatch):
    features, seen, train = blobs(0.7), [], linear._train

    def noted(rows, labels, *args, rates, seed):
        seen.append((rows.clone(), tuple(rates)))
        return train(rows, labels, *args, rates=rates, seed=seed)

    monkeypatch.setattr(linear, "_train", noted)
    scores = linear_scores(features, CLASSES, changed(FAST, held_out=0.3), seed=0)
    (kept, rates), (whole, rate) = seen
    assert (len(kept), len(whole)) == (126, 180)
    assert (rates, rate) == (FAST.rates, (scores["rate"],))
    rows = {tuple(row) for row in whole.tolist()}
    assert len({tuple(row) for row in kept.tolist()} & rows) == 126


@pytest.mark.parametrize("best", [0, 1])
def test_a_validation_part_chooses_the_rate_and_is_not_learned_from(monkeypatch, best):
    """Of two made-up layers, one that always answers class 0 and one class 1, it takes the better one."""
    answers, learned = torch.eye(CLASSES)[:2], []

    def made_up(rows, labels, *args, rates, seed):
        learned.append(len(rows))
        layers = [nn.Linear(rows.shape[1], CLASSES) for _ in rates]
        for layer, answer in zip(layers, answers, strict=False):
            layer.weight.data.zero_()
            layer.bias.data = answer
        return layers

    monkeypatch.setattr(linear, "_train", made_up)
    labels = np.full(10, best)
    features = replace(blobs(2.0), validation=np.zeros((10, 8), np.float32), validation_labels=labels)
    found = linear_scores(features, CLASSES, changed(FAST, rates=[0.1, 0.01]), 0)
    assert found["rate"] == (0.1, 0.01)[best]
    assert learned == [180, 180]


@pytest.mark.parametrize("clips", [1, 2])
def test_a_training_part_too_small_to_hold_out_from(clips):
    features = blobs(0.05)
    tiny = Features(
        features.train[:clips], features.train_labels[:clips], features.test, features.test_labels
    )
    assert linear_scores(tiny, CLASSES, changed(FAST, held_out=0.9), 0)["rate"] == FAST.rates[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates": []}, "rates: "),
        ({"rates": [0.1, 0.0]}, r"rates\.1: "),
        ({"held_out": 0.0}, "held_out: "),
        ({"held_out": 1.0}, "held_out: "),
        ({"momentum": 1.0}, "momentum: "),
        ({"standardise": True}, "unknown key 'standardise'"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        changed(FAST, **change)
