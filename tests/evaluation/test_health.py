import math

import numpy as np
import pytest
from builders import examples, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.evaluation.health import (
    alignment,
    collapse,
    effective_rank,
    feature_std,
    uniformity,
)

EVERY = (feature_std, effective_rank, uniformity)


def unit(row):
    length = math.sqrt(sum(value * value for value in row))
    return [value / length if length else 0.0 for value in row]


def slow_std(rows):
    units = [unit(row) for row in rows]
    total = 0.0
    for column in zip(*units, strict=True):
        mean = sum(column) / len(column)
        total += math.sqrt(sum((value - mean) ** 2 for value in column) / len(column))
    return total / len(rows[0]) * math.sqrt(len(rows[0]))


def slow_rank(rows):
    """By the eigenvalues of the Gram matrix, which are squares of the singular values."""
    gram = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]
    values = [math.sqrt(max(value, 0.0)) for value in np.linalg.eigvalsh(np.array(gram))]
    entropy = 0.0
    for value in values:
        share = value / sum(values)
        entropy -= share * math.log(share) if share > 0 else 0.0
    return math.exp(entropy)


def squared_distance(one, other):
    return sum((a - b) ** 2 for a, b in zip(unit(one), unit(other), strict=True))


def slow_alignment(rows, others):
    return sum(map(squared_distance, rows, others)) / len(rows)


def slow_uniformity(rows):
    pairs = [(i, j) for i in range(len(rows)) for j in range(i)]
    return math.log(sum(math.exp(-2 * squared_distance(rows[i], rows[j])) for i, j in pairs) / len(pairs))


@st.composite
def features(draw, least=2):
    """Features (N, D) of any size and scale, some of length 0, some the same."""
    clips, dims = draw(st.integers(least, 9)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(seeds))
    rows = rng.normal(size=(clips, dims)) + draw(st.sampled_from([0.0, 3.0]))
    rows[rng.random(clips) < draw(st.sampled_from([0.0, 0.3]))] = 0
    rows = rows[rng.integers(0, clips, clips)] if draw(st.booleans()) else rows
    return rows * 10.0 ** draw(st.integers(-150, 150))


@given(features())
@settings(max_examples=examples(150), deadline=None)
def test_they_are_what_loops_give(rows):
    rows = rows / (np.abs(rows).max() or 1)  # squares must not overflow in the loops
    assert feature_std(rows) == pytest.approx(slow_std(rows.tolist()), abs=1e-12)
    assert uniformity(rows) == pytest.approx(slow_uniformity(rows.tolist()), abs=1e-12)
    others = rows[::-1] + 0.1
    assert alignment(rows, others) == pytest.approx(slow_alignment(rows, others), abs=1e-12)
    if rows.any():  # roots of eigenvalues are only so exact
        assert effective_rank(rows) == pytest.approx(slow_rank(rows.tolist()), rel=1e-5)


@given(features(least=1), seeds)
@settings(max_examples=examples(150), deadline=None)
def test_any_features_give_numbers_within_their_bounds(rows, seed):
    others = np.random.default_rng(seed).permuted(rows)
    assert 0 <= feature_std(rows) <= 1 + 1e-12
    assert -8 - 1e-12 <= uniformity(rows) <= 1e-12
    assert 0 <= alignment(rows, others) <= 4 + 1e-12
    assert alignment(rows, rows) == 0
    rank = effective_rank(rows)
    assert 1 - 1e-9 <= rank <= min(rows.shape) + 1e-9 if rows.any() else rank == 0


@given(features(), seeds)
@settings(max_examples=examples(50), deadline=None)
def test_scale_order_and_turns_change_nothing(rows, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    for measure in EVERY:
        assert measure(rows[order] * 7) == pytest.approx(measure(rows), rel=1e-6, abs=1e-9)
    turn = np.linalg.qr(rng.normal(size=(rows.shape[1],) * 2))[0]
    for measure in (effective_rank, uniformity):
        assert measure(rows @ turn) == pytest.approx(measure(rows), rel=1e-6, abs=1e-7)


def test_collapsed_features():
    rng = np.random.default_rng(0)
    one = np.tile(rng.normal(size=32), (100, 1))
    nearly = (one + 1e-6 * rng.normal(size=one.shape)).astype(np.float32)
    for rows in (one, nearly):
        assert feature_std(rows) < 1e-4
        assert 1 <= effective_rank(rows) < 1.01
        assert -1e-6 < uniformity(rows) <= 0
        assert collapse(rows).startswith("they hardly differ (feature_std ")
    assert [measure(0 * one) for measure in EVERY] == [0, 0, 0]


def test_features_on_a_line():
    rng = np.random.default_rng(0)
    line = rng.normal(size=(100, 1)) * rng.normal(size=32)
    assert effective_rank(line) == pytest.approx(1)
    beside = line + rng.normal(size=32)
    assert 1 < effective_rank(beside) <= 2 + 1e-9
    assert feature_std(line) > 0.5  # which does not see it: both ends of a line are far apart
    for rows in (line, beside, beside.astype(np.float32)):
        assert collapse(rows).startswith("they lie on a line (effective rank about their mean 1")


@pytest.mark.parametrize("clips", [2, 3, 7])
def test_few_clips_always_lie_on_a_line_or_nearly(clips):
    rows = np.random.default_rng(0).normal(size=(clips, 16))
    assert collapse(rows) is None
    assert collapse(rows * 0) is not None


def test_isotropic_features():
    rows = np.random.default_rng(0).normal(size=(1500, 64)).astype(np.float32)
    assert feature_std(rows) == pytest.approx(1, abs=0.01)
    assert effective_rank(rows) == pytest.approx(64, rel=0.02)
    assert effective_rank(np.eye(64)) == pytest.approx(64)
    # d^2 = 2 - 2 cos, and cosines of independent directions are about normal with a variance of 1 / D.
    spread = -4 + 4**2 / (2 * 64)
    assert uniformity(rows) == pytest.approx(spread, abs=0.01)
    views = rows + 0.1 * np.random.default_rng(1).normal(size=rows.shape)
    assert alignment(rows, views) == pytest.approx(0.01, rel=0.05)
    assert alignment(rows, -rows) == pytest.approx(4)
    assert collapse(rows) is None
    assert collapse(rows + 50) is None  # most of each feature is what all have in common
    assert effective_rank(rows + 50) < 10
