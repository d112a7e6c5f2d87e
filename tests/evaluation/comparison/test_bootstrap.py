import math
import statistics

import numpy as np
import pytest
from builders import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from ssl_skeleton.evaluation import scores
from ssl_skeleton.evaluation.comparison.bootstrap import Difference, holm, paired_bootstrap

seeds = st.integers(0, 10_000)


def answers(
    rng: np.random.Generator, seeds: int, clips: int, *, better: float = 0.0, spread: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Two methods, right or wrong (S, N): hard clips are hard for both, seeds differ by `spread`."""
    easy = rng.normal(size=clips) + 1
    methods = []
    for lead in (better, 0.0):
        liked = easy + lead + 0.7 * rng.normal(size=clips)
        luck = spread * rng.normal(size=(seeds, 1)) + 0.7 * rng.normal(size=(seeds, clips))
        methods.append((liked + luck > 0).astype(float))
    return methods[0], methods[1]


def by_loops(one_sn: np.ndarray, other_sn: np.ndarray, draws: int, rng: np.random.Generator) -> list[float]:
    """The drawn differences, as the docstring says it."""
    found = []
    clips = one_sn.shape[1]
    for _ in range(draws):
        drawn = rng.integers(clips, size=clips)
        value = statistics.fmean(one_sn[:, clip].mean() - other_sn[:, clip].mean() for clip in drawn)
        for sign, method in ((1, one_sn), (-1, other_sn)):
            accuracies, n = method.mean(axis=1), len(method)
            if n > 1:
                picked = [accuracies[seed] for seed in rng.integers(n, size=n)]
                deviation = statistics.fmean(picked) - statistics.fmean(accuracies)
                value += sign * math.sqrt(n / (n - 1)) * deviation
        found.append(value)
    return found


@pytest.mark.parametrize(("one", "other", "spread"), [(1, 1, 0.0), (3, 3, 0.2), (4, 2, 0.5), (1, 3, 0.5)])
def test_against_loops(one, other, spread):
    rng = np.random.default_rng(one)
    method, against = answers(rng, max(one, other), 30, better=0.3, spread=spread)
    found = paired_bootstrap(method[:one], against[:other])
    drawn = by_loops(method[:one], against[:other], 1500, rng)
    assert found.mean == pytest.approx(method[:one].mean() - against[:other].mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low, abs=0.035), pytest.approx(high, abs=0.035))
    below, above = np.mean(np.array(drawn) <= 1e-9), np.mean(np.array(drawn) >= -1e-9)
    assert found.p == pytest.approx(min(1, 2 * min(below, above)), abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_one_seed_is_mcnemars_test(seed):
    """With many clips, only those that one of two got right count: (b - c)^2 / (b + c) is chi-squared."""
    rng = np.random.default_rng(seed)
    one, other = answers(rng, 1, 2000, better=0.05)
    b, c = int((one > other).sum()), int((one < other).sum())
    found = paired_bootstrap(one, other)
    error = math.sqrt(b + c - (b - c) ** 2 / 2000) / 2000
    assert found.low == pytest.approx(found.mean - 1.96 * error, abs=0.05 * error + 1e-3)
    assert found.high == pytest.approx(found.mean + 1.96 * error, abs=0.05 * error + 1e-3)
    assert found.p == pytest.approx(2 * norm.sf(abs(b - c) / math.sqrt(b + c)), abs=0.05)


@settings(max_examples=examples(30), deadline=None)
@given(seed=seeds, one=st.integers(1, 3), other=st.integers(1, 3), clips=st.integers(1, 30))
def test_exchanged_it_is_the_same_with_another_sign(seed, one, other, clips):
    method, against = answers(np.random.default_rng(seed), 3, clips)
    there = paired_bootstrap(method[:one], against[:other], 500)
    back = paired_bootstrap(against[:other], method[:one], 500)
    assert back == there.turned()
    assert there.low <= there.high
    assert 0 < there.p <= 1
    assert paired_bootstrap(method[:1], method[:1], 500) == Difference(0.0, 0.0, 0.0, 1.0)


@settings(max_examples=examples(20), deadline=None)
@given(seed=seeds, clips=st.integers(2, 40), most=st.integers(1, 200))
def test_memory_decides_nothing(seed, clips, most):
    one, other = answers(np.random.default_rng(seed), 2, clips)
    whole = paired_bootstrap(one, other, 300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scores, "_AT_ONCE", most)
        assert paired_bootstrap(one, other, 300) == whole


def test_repeats_count_as_shares():
    """Answers of which two repeats got half right are neither right nor wrong."""
    rng = np.random.default_rng(0)
    repeats_rn, other = rng.integers(2, size=(4, 300)).astype(float), np.zeros((1, 300))
    found = paired_bootstrap(repeats_rn.mean(axis=0, keepdims=True), other)
    error = repeats_rn.mean(axis=0).std() / math.sqrt(300)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_seeds_vary_as_much_as_a_sample_says():
    """Where clips tell nothing, the interval is that of a mean over seeds; few seeds too count by n - 1."""
    value_s = np.array([0.5, 0.52, 0.57, 0.49, 0.55, 0.61, 0.53, 0.5])
    one, other = np.repeat(value_s[:, None], 20, axis=1), np.full((1, 20), 0.5)
    found = paired_bootstrap(one, other)
    error = statistics.stdev(value_s) / math.sqrt(len(value_s))
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert (found.mean, found.p < 0.05) == (pytest.approx(value_s.mean() - 0.5), True)


def test_p_of_methods_that_are_equally_good_is_uniform():
    p = [paired_bootstrap(*answers(np.random.default_rng(seed), 1, 250), 400).p for seed in range(400)]
    for level in (0.05, 0.2, 0.5, 0.8):  # three standard errors, and p is never too small by ties
        assert np.mean(np.array(p) < level) == pytest.approx(level - 0.02, abs=0.02 + 3 * level**0.5 / 20)


@pytest.mark.parametrize(("spread", "most"), [(0.0, 0.05), (0.1, 0.07)])
def test_with_several_seeds_it_errs_on_the_safe_side(spread, most):
    pairs = [answers(np.random.default_rng(seed), 4, 250, spread=spread) for seed in range(300)]
    assert np.mean([paired_bootstrap(*pair, 400).p < 0.05 for pair in pairs]) <= most


@pytest.mark.parametrize("number", [1, 4])
def test_the_interval_covers_the_true_difference(number):
    rng = np.random.default_rng(0)
    many = answers(rng, 1, 400_000, better=0.4)
    truth = many[0].mean() - many[1].mean()
    found = [
        paired_bootstrap(*answers(np.random.default_rng(seed), number, 250, better=0.4), 400)
        for seed in range(300)
    ]
    assert np.mean([one.low <= truth <= one.high for one in found]) > 0.92


def step_down(p_values: list[float], level: float) -> set[int]:
    """The tests that Holm's procedure rejects: from the smallest p on, until one is too large."""
    rejected: set[int] = set()
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        if p_values[place] > level / (len(p_values) - rank):
            break
        rejected.add(place)
    return rejected


@given(p=st.lists(st.floats(0.0001, 1.0), max_size=8), level=st.floats(0.001, 0.5))
def test_holm_rejects_what_his_procedure_rejects(p, level):
    adjusted = holm(p)
    near = [abs(value - level) < 1e-9 for value in adjusted]
    found = {place for place, value in enumerate(adjusted) if value <= level}
    assert any(near) or found == step_down(p, level)
    assert all(one <= other <= 1 for one, other in zip(p, adjusted, strict=True))


def test_holm_of_one_test_changes_nothing():
    assert holm([]) == []
    assert holm([0.03]) == [0.03]
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
