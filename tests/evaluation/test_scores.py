import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_skeleton.evaluation.scores import classification_scores


def scores_by_loops(ranking, labels, classes) -> dict:
    confusion = [[0] * classes for _ in range(classes)]
    hits = five = 0
    for row, label in zip(ranking, labels, strict=True):
        confusion[label][row[0]] += 1
        hits += row[0] == label
        five += label in row[:5]
    per_class = []
    for label in range(classes):
        total = sum(confusion[label])
        per_class.append(confusion[label][label] / total if total else None)
    scores = {"top1": hits / len(labels), "per_class": per_class, "confusion": confusion}
    return scores | ({"top5": five / len(labels)} if classes > 5 else {})


@given(clips=st.integers(1, 12), classes=st.integers(1, 8), seed=st.integers(0, 999))
def test_against_loops(clips, classes, seed):
    rng = np.random.default_rng(seed)
    ranking = np.array([rng.permutation(classes) for _ in range(clips)])
    labels = rng.integers(classes, size=clips)
    found = classification_scores(ranking, labels, classes)
    expected = scores_by_loops(ranking.tolist(), labels.tolist(), classes)
    assert found.keys() == expected.keys()
    for name, score in expected.items():
        assert found[name] == (score if name == "confusion" else pytest.approx(score))


def test_a_class_without_clips_has_no_score():
    scores = classification_scores(np.array([[0], [1], [0]]), np.array([0, 0, 2]), 3)
    assert scores["per_class"] == [0.5, None, 0.0]
    assert scores["confusion"] == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert "top5" not in scores
