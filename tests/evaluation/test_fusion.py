import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.fusion import (
    FusionConfig,
    choose_weights,
    choosing_clips,
    equal,
    fused,
    fusion_scorer,
    held_apart,
    weights_grid,
)

CLASSES = 6
seeds = st.integers(0, 999)


def drawn(seed: int, runs: int = 3, clips: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """Class probabilities (R, N, C), of runs that know a little, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=clips)
    logits = rng.normal(size=(runs, clips, CLASSES)) + 1.5 * np.eye(CLASSES)[labels]
    share = np.exp(logits)
    return share / share.sum(axis=2, keepdims=True), labels


@given(seeds, st.lists(st.floats(0.01, 9), min_size=1, max_size=5))
def test_probabilities_are_weighted_and_added(seed, weights):
    probabilities, _ = drawn(seed, len(weights), clips=4)
    found = fused(probabilities, tuple(weights))
    for n, c in np.ndindex(4, CLASSES):
        total = sum(weight * one[n][c] for weight, one in zip(weights, probabilities, strict=True))
        assert found[n, c] == pytest.approx(total / sum(weights))
    np.testing.assert_allclose(found.sum(axis=1), 1)


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_one_run_and_copies_of_it_and_a_weight_of_one_are_the_run(seed):
    probabilities, labels = drawn(seed)
    for number, one in enumerate(probabilities):
        expected = fusion_scorer(one[None], (1.0,))(labels)
        by_hand = (-one).argsort(axis=1)[:, 0]
        assert expected["predicted"] == by_hand.tolist()
        assert expected["top1"] == pytest.approx((by_hand == labels).mean())
        alone = tuple(float(number == other) for other in range(len(probabilities)))
        for scores in (
            fusion_scorer(probabilities, alone)(labels),
            fusion_scorer(np.stack([one, one, one]), equal(3))(labels),
            fusion_scorer(np.stack([one, one]), (0.6, 0.4))(labels),
        ):
            assert scores | {"weights": [1.0]} == expected


@given(seeds, st.permutations([0, 1, 2]), st.floats(0.01, 100))
def test_neither_the_order_of_runs_nor_the_scale_of_weights_counts(seed, order, scale):
    probabilities, _ = drawn(seed)
    weights = np.array([0.6, 0.5, 0.4])
    again = fused(probabilities[order], tuple((scale * weights)[order].tolist()))
    np.testing.assert_allclose(again, fused(probabilities, tuple(weights.tolist())), rtol=1e-12)


def test_labels_change_the_score_alone():
    probabilities, labels = drawn(0)
    score = fusion_scorer(probabilities, equal(3))
    plain, poisoned = score(labels), score((labels + 1) % CLASSES)
    assert plain["predicted"] == poisoned["predicted"]
    assert plain["top1"] != poisoned["top1"]


def goodness(probabilities, labels, weights, by: str) -> float:
    """By loops: the mean log-likelihood or the accuracy."""
    total = 0.0
    for n, label in enumerate(labels):
        mean = [
            sum(weight * one[n][c] for weight, one in zip(weights, probabilities, strict=True))
            for c in range(CLASSES)
        ]
        total += math.log(mean[label]) if by == "log_likelihood" else float(np.argmax(mean) == label)
    return total / len(labels)


@pytest.mark.parametrize("by", ["log_likelihood", "accuracy"])
@pytest.mark.parametrize("seed", range(4))
def test_no_weights_of_the_grid_are_better_than_the_chosen(by, seed):
    probabilities, labels = drawn(seed)
    config = FusionConfig(choose=by, steps=5)
    chosen = choose_weights(probabilities, labels, config)
    every = {
        (a / 5, b / 5, (5 - a - b) / 5): goodness(probabilities, labels, (a / 5, b / 5, (5 - a - b) / 5), by)
        for a in range(6)
        for b in range(6 - a)
    } | {equal(3): goodness(probabilities, labels, equal(3), by)}
    assert goodness(probabilities, labels, chosen, by) == pytest.approx(max(every.values()))
    distance = {weights: sum((weight - 1 / 3) ** 2 for weight in weights) for weights in every}
    best = [weights for weights, value in every.items() if value > max(every.values()) - 1e-9]
    assert distance[min(best, key=distance.__getitem__)] == pytest.approx(
        sum((weight - 1 / 3) ** 2 for weight in chosen)
    )


@pytest.mark.parametrize("by", ["log_likelihood", "accuracy"])
def test_copies_are_weighed_alike_and_a_run_that_knows_nothing_is_not_heard(by):
    probabilities, labels = drawn(1)
    config = FusionConfig(choose=by)
    assert choose_weights(np.stack([probabilities[0]] * 3), labels, config) == equal(3)
    knowing = np.where(np.eye(CLASSES)[labels] > 0, 0.9, 0.1 / (CLASSES - 1))
    misled = np.roll(knowing, 1, axis=1)
    weights = choose_weights(np.stack([misled, knowing]), labels, config)
    assert weights == ((0.0, 1.0) if by == "log_likelihood" else (0.4, 0.6))  # the nearest to equal that do


def test_a_probability_of_zero_can_be_weighed():
    probabilities = np.zeros((2, 3, CLASSES))
    probabilities[0, :, 0] = probabilities[1, :, 1] = 1
    labels = np.array([0, 0, 1])
    weights = choose_weights(probabilities, labels, FusionConfig(choose="log_likelihood", steps=3))
    assert weights == pytest.approx((2 / 3, 1 / 3))


@pytest.mark.parametrize(("runs", "steps"), [(1, 4), (2, 10), (3, 7), (5, 3)])
def test_the_grid(runs, steps):
    first, *grid = weights_grid(runs, steps)
    assert first == (1 / runs,) * runs
    assert len(grid) == len(set(grid)) == math.comb(steps + runs - 1, runs - 1)
    for weights in grid:
        assert sum(weights) == pytest.approx(1)
        assert all(
            weight >= 0 and (weight * steps) == pytest.approx(round(weight * steps)) for weight in weights
        )
    far = [sum((weight - 1 / runs) ** 2 for weight in weights) for weights in grid]
    assert far == pytest.approx(sorted(far))


@given(st.integers(2, 30), st.floats(0.05, 0.6), seeds)
def test_clips_held_apart_are_not_learned_from(clips, share, seed):
    rows = np.arange(clips, dtype=np.float32)[:, None]
    labels = np.arange(clips) % 3
    held = max(1, round(share * clips))
    assume(clips - held > math.ceil(clips / 3))  # more are left than are of one class
    learn, held_labels = held_apart(Features(rows, labels, rows + 100), share, seed)
    assert sorted([*learn.train[:, 0], *learn.test[:, 0]]) == rows[:, 0].tolist()
    assert len(learn.test) == held
    assert learn.train_labels.tolist() == (learn.train[:, 0].astype(int) % 3).tolist()
    assert held_labels.tolist() == (learn.test[:, 0].astype(int) % 3).tolist()
    again, _ = held_apart(Features(np.hstack([rows, rows]), labels, np.hstack([rows, rows])), share, seed)
    assert again.test[:, 0].tolist() == learn.test[:, 0].tolist()  # the same clips of whatever features


def test_a_validation_part_is_held_apart():
    rows = np.arange(9, dtype=np.float32)[:, None]
    labels = np.arange(9) % 2
    features = Features(rows[:4], labels[:4], rows[7:], rows[4:7], labels[4:7])
    learn, held_labels = held_apart(features, 0.5, 0)
    assert (learn.train.tolist(), learn.test.tolist()) == (rows[:4].tolist(), rows[4:7].tolist())
    assert (learn.train_labels.tolist(), held_labels.tolist()) == ([0, 1, 0, 1], [0, 1, 0])
    assert learn.validation is learn.validation_labels is None


def test_something_must_be_left_to_learn_from():
    rows = np.zeros((1, 2), np.float32)
    with pytest.raises(UserError, match=r"evaluation\.fuse\.held_out: 0\.5 of 1 clips leaves none"):
        held_apart(Features(rows, np.zeros(1, np.int64), rows), 0.5, 0)


@given(st.integers(2, 12), st.floats(0.05, 0.95), seeds)
def test_what_is_left_to_learn_from_shows_two_classes_or_the_user_is_told(clips, share, seed):
    """Which clips choose hangs on their number alone: labels say only whether that will do."""
    every, left = np.arange(clips), clips - max(1, round(share * clips))
    assume(left > 1)
    kept, choosing = choosing_clips(every, share, seed)
    assert sorted([*kept, *choosing]) == every.tolist()
    with pytest.raises(UserError) as caught:
        choosing_clips(np.isin(every, choosing).astype(np.int64), share, seed)
    told = f"{share} of {clips} clips leaves {left} to learn from, of one class; take a smaller share"
    assert str(caught.value) == f"evaluation.fuse.held_out: {told}, or give the weights: --weights"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"weights": [0.5, -0.1]}, r"weights\.1: .*greater than or equal to 0, not -0\.1"),
        ({"weights": [0.0, 0.0]}, "weights: at least one should be above 0"),
        ({"weights": []}, "weights: at least one should be above 0"),
        ({"weights": [0.5, 0.5], "choose": "accuracy"}, "choose: weights are given already"),
        ({"choose": "acuracy"}, "choose: 'acuracy' is not possible; did you mean 'accuracy'"),
        ({"steps": 0}, "steps: "),
        ({"held_out": 1.0}, "held_out: "),
    ],
)
def test_mistakes_are_named(tree, message):
    with pytest.raises(UserError, match=message):
        FusionConfig.from_tree(tree, "evaluation.fuse")


def test_weights_that_do_not_fit_the_runs():
    FusionConfig(weights=(0.6, 0.4)).check_runs(2)
    with pytest.raises(UserError, match=r"evaluation\.fuse\.weights: 2 for 3 runs; give one for each"):
        FusionConfig(weights=(0.6, 0.4)).check_runs(3)
    FusionConfig(choose="accuracy").check_runs(6)
    with pytest.raises(UserError, match=r"evaluation\.fuse\.steps: 10 are 43758 ways to weigh 9 runs"):
        FusionConfig(choose="accuracy").check_runs(9)
