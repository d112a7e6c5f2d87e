from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation import retrieval as module
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.neighbours.directions import Directions
from ssl_skeleton.evaluation.retrieval import RetrieveConfig, places_of, retrieval_probe

CLASSES = 4


def noise(seed: int, gallery: int = 40, queries: int = 15, *, copies: float = 0.0) -> Features:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(gallery + queries, 6)).astype(np.float32)
    many = rng.random(gallery) < copies
    rows[:gallery][many] = rows[rng.integers(5, size=many.sum())]
    return Features(rows[:gallery], rng.integers(CLASSES, size=gallery), rows[gallery:])


def truth(seed: int, queries: int = 15) -> np.ndarray:
    return np.random.default_rng([seed, 1]).integers(CLASSES, size=queries)


def cosines(features: Features) -> np.ndarray:
    """To the part of 1 to which they are told apart."""
    gallery, queries = Directions(features.train), Directions(features.test)
    every = np.tile(np.arange(len(gallery)), (len(queries), 1))
    return np.round(queries.cosines_with(gallery, every) * places_of(len(gallery)))


def by_loops(features: Features, labels: np.ndarray, wanted: tuple[int, ...]) -> dict:
    average, first, right = [], [], []
    for likeness, label in zip(cosines(features), labels, strict=True):
        same = features.train_labels == label
        if not same.any():
            continue
        average.append(average_precision_score(same, likeness))
        order = np.argsort(-likeness, kind="stable")
        first.append(np.flatnonzero(same[order])[0])
        right.append([same[order][:k].mean() for k in wanted])
    return {
        "map": np.mean(average),
        "recall": {str(k): np.mean(np.array(first) < k) for k in wanted},
        "precision": {str(k): share for k, share in zip(wanted, np.mean(right, axis=0), strict=True)},
        "queries": len(average),
        "left_out": len(labels) - len(average),
    }


def assert_agree(scores: dict, expected: dict) -> None:
    assert scores["queries"] == expected["queries"]
    assert scores["left_out"] == expected["left_out"]
    assert scores["map"] == pytest.approx(expected["map"], abs=1e-12)
    for name in ("recall", "precision"):
        assert scores[name] == pytest.approx(expected[name], abs=1e-12)


@given(st.integers(0, 2**31 - 1), st.sampled_from([0.0, 0.7]), st.integers(2, 60), st.booleans())
@settings(max_examples=25, deadline=None)
def test_it_agrees_with_scikit_learn(seed, copies, gallery, unknown):
    features = noise(seed, gallery, copies=copies)
    wanted = tuple(k for k in (1, 3, 10, gallery) if k <= gallery)
    labels = features.train_labels.copy()
    labels[:2] = 0, 2  # two classes at least
    if unknown and gallery > 8:
        labels[4:8] = -1
    features = replace(features, train_labels=labels)
    scores = retrieval_probe(features, CLASSES, RetrieveConfig(k=wanted))(truth(seed))
    assert_agree(scores, by_loops(features, truth(seed), wanted))


def test_queries_of_classes_that_the_gallery_lacks_are_left_out():
    features = noise(0)
    features = replace(features, train_labels=features.train_labels % 2)
    labels = truth(0)
    scores = retrieval_probe(features, CLASSES, RetrieveConfig())(labels)
    assert scores["left_out"] == (labels >= 2).sum() > 0
    assert_agree(scores, by_loops(features, labels, (1, 5, 10)))
    kept = replace(features, test=features.test[labels < 2])
    assert retrieval_probe(kept, CLASSES, RetrieveConfig())(labels[labels < 2]) == scores | {"left_out": 0}
    with pytest.raises(UserError, match="the gallery has no clip of any query's class"):
        retrieval_probe(features, CLASSES, RetrieveConfig())(np.full(15, 3))


def test_a_perfect_and_the_worst_ranking():
    rows = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    features = Features(rows, np.array([0, 0, 1, 1]), np.array([[1, 0.05]], np.float32))
    scorer = retrieval_probe(features, 2, RetrieveConfig(k=(1, 2, 3)))
    best, worst = scorer(np.array([0])), scorer(np.array([1]))
    assert (best["map"], best["interval"]["map"]) == (1, [1, 1])
    assert (best["recall"], best["precision"]) == ({"1": 1, "2": 1, "3": 1}, {"1": 1, "2": 1, "3": 2 / 3})
    assert worst["map"] == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert (worst["recall"], worst["precision"]) == ({"1": 0, "2": 0, "3": 1}, {"1": 0, "2": 0, "3": 1 / 3})


def test_equally_near_clips_stand_at_the_last_of_their_places():
    features = Features(np.ones((4, 2), np.float32), np.array([0, 1, 0, 0]), np.ones((1, 2), np.float32))
    assert retrieval_probe(features, 2, RetrieveConfig(k=(1,)))(np.array([0]))["map"] == 3 / 4
    assert retrieval_probe(features, 2, RetrieveConfig(k=(1,)))(np.array([1]))["map"] == 1 / 4


def test_neither_blocks_nor_threads_nor_order_make_a_difference(monkeypatch):
    features = noise(3, 200, 40, copies=0.4)
    expected = retrieval_probe(features, CLASSES, RetrieveConfig())(truth(3, 40))
    order = np.random.default_rng(0).permutation(200)
    turned = replace(features, train=features.train[order], train_labels=features.train_labels[order])
    assert retrieval_probe(turned, CLASSES, RetrieveConfig())(truth(3, 40))["map"] == expected["map"]
    monkeypatch.setattr(module, "_BLOCK", 3 * 200)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert retrieval_probe(features, CLASSES, RetrieveConfig())(truth(3, 40)) == expected
    finally:
        torch.set_num_threads(before)


def test_the_interval_holds_the_mean():
    scores = retrieval_probe(noise(1, queries=200), CLASSES, RetrieveConfig())(truth(1, 200))
    low, high = scores["interval"]["map"]
    assert low < scores["map"] < high < low + 0.1


@pytest.mark.parametrize("k", [(0,), (1, 41)])
def test_an_impossible_k_is_refused(k):
    with pytest.raises(
        UserError, match=r"evaluation.retrieve.k: must lie in 1..40, the clips in the gallery"
    ):
        retrieval_probe(noise(0), CLASSES, RetrieveConfig(k=k))


@given(st.integers(1, 20))
def test_of_the_usual_k_those_that_fit_are_left(gallery):
    config = RetrieveConfig()
    assert config.among(gallery).k == tuple(k for k in config.k if k <= gallery)
    assert RetrieveConfig(k=(gallery, 1)).among(gallery).k == (gallery, 1)
    message = rf"evaluation.retrieve.k: must lie in 1..{gallery}, .*; name such numbers alone, as .*=\[1\]"
    with pytest.raises(UserError, match=message):
        RetrieveConfig(k=(1, gallery + 1)).among(gallery)


def test_no_k_is_left_of_an_empty_gallery():
    with pytest.raises(
        UserError, match=r"evaluation.retrieve.k: must lie in 1..0, the clips in the gallery, not 1, 5, 10$"
    ):
        RetrieveConfig().among(0)


def test_scores_are_given_for_the_k_that_are_left():
    few = replace(noise(0), train=noise(0).train[:7], train_labels=np.arange(7) % CLASSES)
    found = retrieval_probe(few, CLASSES, RetrieveConfig())(truth(0, len(few.test)))
    assert found == retrieval_probe(few, CLASSES, RetrieveConfig(k=(1, 5)))(truth(0, len(few.test)))
    assert found["recall"].keys() == found["precision"].keys() == {"1", "5"}


def test_one_k_is_a_list_of_one():
    assert RetrieveConfig.from_tree({"k": 3}, "retrieve") == RetrieveConfig(k=(3,))
    for wrong in (True, "3", 3.0, None):
        with pytest.raises(UserError, match=r"^retrieve: k: input should be a list"):
            RetrieveConfig.from_tree({"k": wrong}, "retrieve")


def test_a_gallery_of_one_class_is_refused():
    features = replace(noise(0), train_labels=np.zeros(40, np.int64))
    with pytest.raises(UserError, match="retrieval: all clips in the gallery are of one class"):
        retrieval_probe(features, CLASSES, RetrieveConfig())
