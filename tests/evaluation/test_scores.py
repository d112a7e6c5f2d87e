import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_skeleton.evaluation.scores import (
    classification_scores,
    over_repeats,
    percentile_interval,
    redrawn_means,
)


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
    seen = [share for share in per_class if share is not None]
    scores |= {"balanced": sum(seen) / len(seen), "predicted": [row[0] for row in ranking]}
    return scores | ({"top5": five / len(labels)} if classes > 5 else {})


@given(clips=st.integers(1, 12), classes=st.integers(1, 8), seed=st.integers(0, 999))
def test_against_loops(clips, classes, seed):
    rng = np.random.default_rng(seed)
    ranking = np.array([rng.permutation(classes) for _ in range(clips)])
    labels = rng.integers(classes, size=clips)
    found = classification_scores(ranking, labels, classes)
    expected = scores_by_loops(ranking.tolist(), labels.tolist(), classes)
    interval = found.pop("interval")
    assert interval.keys() == expected.keys() & {"top1", "top5", "balanced"}
    for name, (low, high) in interval.items():
        assert low - 1e-9 <= found[name] <= high + 1e-9
    assert found.keys() == expected.keys()
    for name, score in expected.items():
        assert found[name] == (score if name in ("confusion", "predicted") else pytest.approx(score))


def test_a_class_without_clips_has_no_score():
    scores = classification_scores(np.array([[0], [1], [0]]), np.array([0, 0, 2]), 3)
    assert scores["per_class"] == [0.5, None, 0.0]
    assert scores["confusion"] == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert "top5" not in scores


@pytest.mark.parametrize("seed", [0, 1])
def test_the_intervals_are_those_of_clips_drawn_again(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, size=120, p=[0.6, 0.3, 0.1])
    answers = np.where(rng.random(120) < 0.7, labels, rng.integers(3, size=120))
    shares, balanced = [], []
    for _ in range(3000):
        drawn = rng.integers(120, size=120)
        right = answers[drawn] == labels[drawn]
        shares.append(right.mean())
        balanced.append(np.mean([right[labels[drawn] == label].mean() for label in set(labels[drawn])]))
    found = classification_scores(answers[:, None], labels, 3)["interval"]
    assert found["top1"] == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.015)
    assert found["balanced"] == pytest.approx(np.quantile(balanced, [0.025, 0.975]), abs=0.02)


def test_a_rare_class_counts_in_every_draw():
    """Its 2 clips, both wrong, are not in every draw; the other class is always right."""
    labels = np.array([0] * 18 + [1] * 2)
    found = classification_scores(np.zeros((20, 1), np.int64), labels, 2)
    assert found["interval"]["balanced"] == [0.5, 0.5]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1 / 3, 2 / 3]), min_size=1, max_size=30), st.integers(0, 99))
def test_means_drawn_again_are_those_of_counts(values, seed):
    """By loops: how often each distinct value is drawn, and the mean of that many."""
    drawn = redrawn_means(np.random.default_rng(seed), np.array(values), 7, places=12)
    distinct = sorted(set(values))
    rng = np.random.default_rng(seed)
    for found in drawn:
        counts = rng.multinomial(len(values), [values.count(value) / len(values) for value in distinct])
        total = sum(count * value for count, value in zip(counts, distinct, strict=True))
        assert found == pytest.approx(total / len(values), abs=1e-11)
    # As any mean of clips drawn with replacement, they lie between the least and the most.
    assert min(values) - 1e-9 <= drawn.min() <= drawn.max() <= max(values) + 1e-9


def test_the_interval_leaves_out_a_fortieth_at_either_end():
    assert percentile_interval(np.linspace(0, 40, 401)) == pytest.approx([1, 39])


@given(st.integers(1, 5), st.integers(2, 8), st.integers(0, 999))
def test_scores_over_repeats_are_those_of_all_answers_together(repeats, classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=9)
    answers = [np.array([rng.permutation(classes) for _ in labels]) for _ in range(repeats)]
    found = over_repeats([classification_scores(ranking, labels, classes) for ranking in answers])
    expected = classification_scores(np.concatenate(answers), np.tile(labels, repeats), classes)
    assert found["confusion"] == expected["confusion"]
    assert found["per_class"] == [
        share if share is None else pytest.approx(share) for share in expected["per_class"]
    ]
    for name in ("top1", "top5"):
        assert (name in found) is (name in expected) is (name in found["repeats"])
        if name in found:
            assert found[name] == pytest.approx(expected[name])
    assert ("std" in found) is (repeats > 1) is ("interval" not in found)
    assert found.get("interval", expected["interval"]) == expected["interval"]
    for name, spread in found.get("std", {}).items():
        assert spread == pytest.approx(np.std(found["repeats"][name], ddof=1))
