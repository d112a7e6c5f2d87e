from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation import linear
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.linear import LinearConfig, LogisticConfig, learn_linear, linear_probe
from ssl_skeleton.recipe import EvaluationConfig
from ssl_skeleton.training.seeds import generator

CLASSES = 6
FAST = LinearConfig(epochs=20, batch=32)
TRUTH = np.arange(180, 360) % CLASSES  # of the test clips of `blobs`


def blobs(spread: float, clips: int = 180, dim: int = 8) -> Features:
    rng = np.random.default_rng(0)
    labels = np.arange(2 * clips) % CLASSES
    rows = rng.normal(size=(CLASSES, dim))[labels] + spread * rng.normal(size=(2 * clips, dim))
    rows = rows.astype(np.float32)
    return Features(rows[:clips], labels[:clips], rows[clips:])


def linear_scores(features: Features, classes: int, config: LinearConfig, seed: int) -> dict:
    return linear_probe(features, classes, config, seed)(TRUTH)


def predicted(features: Features, seed: int = 0) -> list[int]:
    return linear_scores(features, CLASSES, FAST, seed)["predicted"]


def test_separable_classes_are_told_apart():
    scores = linear_scores(blobs(0.05), CLASSES, FAST, seed=0)
    assert scores["top1"] == scores["top5"] == 1.0
    assert scores["per_class"] == [1.0] * CLASSES


def test_it_agrees_with_logistic_regression():
    features = blobs(0.7)
    judge = LogisticRegression(max_iter=1000).fit(features.train, features.train_labels)
    expected = judge.score(features.test, TRUTH)
    assert 0.3 < expected < 0.95
    assert linear_scores(features, CLASSES, FAST, seed=0)["top1"] == pytest.approx(expected, abs=0.05)


def test_it_learns_nothing_from_labels_without_meaning():
    features = blobs(0.7)
    shuffled = np.random.default_rng(1).permutation(features.train_labels)
    poisoned = Features(features.train, shuffled, features.test)
    assert linear_scores(poisoned, CLASSES, FAST, seed=0)["top1"] < 0.4


def test_standardised_features_have_no_scale():
    features = blobs(0.7)
    scale = np.exp2(np.arange(-4, 4, dtype=np.float32))  # powers of two, which float arithmetic keeps exactly
    scaled = Features(features.train * scale, features.train_labels, features.test * scale)
    assert predicted(features) == predicted(scaled)


def test_a_constant_feature_does_no_harm():
    features = blobs(0.05)
    train, test = (
        np.hstack([part, np.full((len(part), 1), 7.0, np.float32)])
        for part in (features.train, features.test)
    )
    scores = linear_scores(Features(train, features.train_labels, test), CLASSES, FAST, 0)
    assert scores["top1"] == 1.0


def test_one_seed_gives_one_score():
    features = blobs(0.7)
    assert linear_scores(features, CLASSES, FAST, 3) == linear_scores(features, CLASSES, FAST, 3)
    assert predicted(features, 3) != predicted(features, 4)


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
        poisoned = Features(features.train, features.train_labels, test)
        assert linear_scores(poisoned, CLASSES, config, seed)["rate"] == rate


def test_the_rate_is_chosen_on_clips_that_it_was_not_trained_on(monkeypatch):
    features, seen, train = blobs(0.7), [], linear.train_layers

    def noted(part, classes, config, rates, order):
        seen.append((part[0].clone(), tuple(rates)))
        return train(part, classes, config, rates, order)

    monkeypatch.setattr(linear, "train_layers", noted)
    scores = linear_scores(features, CLASSES, changed(FAST, held_out=0.3), seed=0)
    (kept, rates), (whole, rate) = seen
    assert (len(kept), len(whole)) == (126, 180)
    assert (rates, rate) == (FAST.rates, (scores["rate"],))
    rows = {tuple(row) for row in whole.tolist()}
    assert len({tuple(row) for row in kept.tolist()} & rows) == 126


@pytest.mark.parametrize("best", [0, 1])
def test_a_validation_part_chooses_the_rate_and_is_not_learned_from(monkeypatch, best):
    """Of two made-up layers, one that always answers class 0 and one class 1, it takes the better one."""
    learned = []

    def made_up(part, classes, config, rates, order):
        learned.append(len(part[0]))
        layers = torch.zeros(len(rates), CLASSES, part[0].shape[1])
        for layer_ce, answer in zip(layers, (0, 1), strict=False):
            layer_ce[answer, -1] = 1
        return layers

    monkeypatch.setattr(linear, "train_layers", made_up)
    labels = np.full(10, best)
    features = replace(blobs(2.0), validation=np.zeros((10, 8), np.float32), validation_labels=labels)
    found = linear_scores(features, CLASSES, changed(FAST, rates=[0.1, 0.01]), 0)
    assert found["rate"] == (0.1, 0.01)[best]
    assert learned == [180, 180]


def test_a_training_part_too_small_to_hold_out_from():
    features = blobs(0.05)
    tiny = Features(features.train[:2], features.train_labels[:2], features.test)
    assert linear_scores(tiny, CLASSES, changed(FAST, held_out=0.9), 0)["rate"] == FAST.rates[0]
    strengths = LogisticConfig(held_out=0.9)
    assert linear_scores(tiny, CLASSES, strengths, 0)["strength"] == strengths.strengths[0]


@pytest.mark.parametrize("clips", [1, 5])
def test_a_training_part_of_one_class_is_refused(clips):
    features = blobs(0.05)
    one = Features(features.train[:clips], np.full(clips, 3), features.test)
    with pytest.raises(UserError, match="are all of one class, but a linear probe needs two"):
        linear_probe(one, CLASSES, FAST, 0)


@pytest.mark.parametrize("config", [FAST, LogisticConfig()], ids=["tuned", "logistic"])
def test_classes_that_only_test_clips_show_are_scored_and_named(config):
    features, kept = blobs(0.05), np.flatnonzero(np.arange(180) % CLASSES < 4)
    few = Features(features.train[kept], features.train_labels[kept], features.test)
    scores = linear_scores(few, CLASSES, config, 0)
    assert scores["unseen"] == [4, 5]
    assert scores["per_class"] == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert scores["top1"] == pytest.approx(4 / 6)
    assert "unseen" not in linear_scores(features, CLASSES, config, 0)


PUBLISHED = {
    "crrl": {"lr": 3.0, "batch": 128, "epochs": 100, "milestones": (80,)},
    "aimclr": {"lr": 3.0, "batch": 128, "epochs": 100, "milestones": (80,)},
    "cmd": {"lr": 0.1, "batch": 64, "epochs": 80, "milestones": (50, 70)},
}


def named(name: str, **values) -> EvaluationConfig:
    return EvaluationConfig.from_tree({"linear": {"name": name} | values}, "evaluation").linear


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_numbers_of_published_protocols(name):
    config, numbers = named(name), PUBLISHED[name]
    assert {key: getattr(config, key) for key in ("lr", "batch", "epochs")}.items() <= numbers.items()
    assert (config.schedule.milestones, config.schedule.factor) == (numbers["milestones"], 0.1)
    assert (config.momentum, config.weight_decay) == (0.9, 0.0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_protocols_take_features_as_they_are(name, monkeypatch):
    """A linear layer and torch.optim.SGD, batch by batch, answer the same."""
    features, config = blobs(0.7), named(name, epochs=6)
    found = linear_scores(features, CLASSES, config, 5)
    layer = nn.Linear(8, CLASSES)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimiser = torch.optim.SGD(layer.parameters(), lr=config.lr, momentum=0.9)
    order = generator(5, "linear", "order")
    train, labels = torch.from_numpy(features.train), torch.from_numpy(features.train_labels)
    for _ in range(6):
        for index in torch.randperm(180, generator=order).split(config.batch):
            optimiser.zero_grad()
            functional.cross_entropy(layer(train[index]), labels[index]).backward()
            optimiser.step()
    with torch.no_grad():
        logits = layer(torch.from_numpy(features.test))
    assert found["predicted"] == logits.argmax(dim=1).tolist()
    assert found["rate"] == config.lr


def test_logistic_regression_is_the_judges_own():
    features = blobs(0.7)
    found = linear_scores(features, CLASSES, LogisticConfig(strengths=(0.3,)), 0)
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=1000))
    judge.fit(features.train, features.train_labels)
    assert found["predicted"] == judge.predict(features.test).tolist()
    assert found["strength"] == 0.3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_strength_that_does_best_on_held_out_clips_is_taken(seed):
    features, strengths = blobs(1.2), (1e-5, 1e-3, 0.1, 10.0)
    found = linear_scores(features, CLASSES, LogisticConfig(strengths=strengths, held_out=0.4), seed)
    order = torch.randperm(180, generator=generator(seed, "linear", "held out")).numpy()
    held_out, kept = order[:72], order[72:]
    scaler, right = StandardScaler().fit(features.train), []
    for strength in strengths:
        judge = LogisticRegression(C=strength, max_iter=1000)
        judge.fit(scaler.transform(features.train[kept]), features.train_labels[kept])
        right.append(judge.score(scaler.transform(features.train[held_out]), features.train_labels[held_out]))
    assert found["strength"] == strengths[int(np.argmax(right))]


@pytest.mark.parametrize("config", [FAST, named("crrl", epochs=20)], ids=["tuned", "crrl"])
def test_probabilities_are_averaged_over_the_views(config):
    features, rng = blobs(1.2), np.random.default_rng(2)
    views = np.stack([features.test + rng.normal(size=features.test.shape) for _ in range(3)])
    views = views.astype(np.float32)
    found = linear_scores(replace(features, views=views), CLASSES, config, 0)["predicted"]
    layers = []
    with pytest.MonkeyPatch.context() as patch:
        train = linear.train_layers
        patch.setattr(
            linear, "train_layers", lambda *args, **told: layers.append(train(*args, **told)) or layers[-1]
        )
        linear_scores(features, CLASSES, config, 0)
    layer_ce = layers[-1][0].double().numpy()
    scaler = StandardScaler(with_mean=config is FAST, with_std=config is FAST).fit(features.train)
    mean_nc = np.zeros((180, CLASSES))
    for view in views:
        logits_nc = scaler.transform(view.astype(np.float64)) @ layer_ce[:, :-1].T + layer_ce[:, -1]
        odds_nc = np.exp(logits_nc - logits_nc.max(axis=1, keepdims=True))
        mean_nc += odds_nc / odds_nc.sum(axis=1, keepdims=True) / 3
    assert found == mean_nc.argmax(axis=1).tolist()
    single = linear_scores(replace(features, test=views[0]), CLASSES, config, 0)["predicted"]
    assert found != single
    again = linear_scores(replace(features, views=views[:1].repeat(4, axis=0)), CLASSES, config, 0)
    assert again["predicted"] == single


def test_a_layer_that_grows_beyond_all_numbers_is_refused_and_never_chosen():
    features = blobs(0.7)
    for config in (named("crrl", lr=1e38, epochs=5), LinearConfig(rates=(1e38, 1e37), epochs=5)):
        with pytest.raises(UserError, match=r"beyond all numbers \(rate 1e\+38\); take a smaller"):
            linear_scores(features, CLASSES, config, 0)
    for rates in ((1e38, 1e-30), (1e-30, 1e38)):
        assert linear_scores(features, CLASSES, LinearConfig(rates=rates, epochs=5), 0)["rate"] == 1e-30


def test_classes_are_ranked_where_most_have_no_probability_to_speak_of():
    far = blobs(0.7)
    far = replace(far, test=far.test * 1e4)
    probability_nc = learn_linear(far, CLASSES, FAST, 0).probabilities(far)
    assert (probability_nc > 0).sum(axis=1).min() == 1
    near = replace(far, test=far.test / 1e4 * 30)  # which have the same order, but for the bias
    order_nc = (-learn_linear(near, CLASSES, FAST, 0).probabilities(near)).argsort(axis=1)
    for place in range(5):
        third = linear_probe(far, CLASSES, FAST, 0)(order_nc[:, place])
        assert (third["top1"] > 0.9) == (place == 0)
        assert third["top5"] > 0.9


@pytest.mark.parametrize("config", [FAST, named("cmd", epochs=9), LogisticConfig()], ids=lambda c: c.name)
def test_the_probabilities_are_those_of_the_answers(config):
    features = blobs(0.7)
    probability_nc = learn_linear(features, CLASSES, config, 3).probabilities(features)
    np.testing.assert_allclose(probability_nc.sum(axis=1), 1)
    assert (probability_nc >= 0).all()
    answers = linear_scores(features, CLASSES, config, 3)["predicted"]
    assert probability_nc.argmax(axis=1).tolist() == answers
    twice = replace(features, views=np.stack([features.test, features.test]))
    np.testing.assert_allclose(learn_linear(twice, CLASSES, config, 3).probabilities(twice), probability_nc)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates": []}, "rates: "),
        ({"rates": [0.1, 0.0]}, r"rates\.1: "),
        ({"held_out": 0.0}, "held_out: "),
        ({"held_out": 1.0}, "held_out: "),
        ({"momentum": 1.0}, "momentum: "),
        ({"standardise": True}, "unknown key 'standardise'"),
        ({"name": "crl"}, r"linear: unknown name 'crl'; did you mean 'crrl'\?"),
        ({"name": "crrl"}, "unknown key 'rates'"),
        ({"name": "crrl", "lr": 0}, "lr: "),
        ({"name": "logistic", "strengths": []}, "strengths: "),
        ({"name": "logistic", "epochs": 5}, "unknown key 'epochs'"),
    ],
)
def test_mistakes_are_named(change, message):
    tree = change if {"lr", "strengths", "epochs"} & change.keys() else FAST.to_tree() | change
    with pytest.raises(UserError, match=message):
        EvaluationConfig.from_tree({"linear": tree}, "evaluation")


def test_a_section_without_a_name_is_of_the_projects_own_protocol():
    tree = {"epochs": 7, "rates": [0.5]}
    assert named("tuned", **tree) == EvaluationConfig.from_tree({"linear": tree}, "evaluation").linear
    assert EvaluationConfig().linear == LinearConfig() == named("tuned")
