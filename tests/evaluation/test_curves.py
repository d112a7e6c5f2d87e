import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_skeleton.evaluation.curves import curve_scores, curve_tables, mean_interval
from ssl_skeleton.evaluation.scores import Scorer, classification_scores

CLASSES = 3
NAMES = ("sit", "walk", "throw")


def answering(predicted: np.ndarray) -> Scorer:
    return lambda labels: classification_scores(predicted[:, None], labels, CLASSES)


def balanced_by_loops(predicted: np.ndarray, labels: np.ndarray) -> float:
    shares = [np.mean(predicted[labels == label] == label) for label in sorted(set(labels.tolist()))]
    return float(np.mean(shares))


@given(clips=st.integers(2, 15), draws=st.integers(1, 4), seed=st.integers(0, 999))
def test_a_curve_is_the_mean_over_draws(clips, draws, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=clips)
    answers = [[rng.integers(CLASSES, size=clips) for _ in range(n)] for n in (1, draws, draws)]
    levels = (0.0, 0.25, 0.5)
    curve = curve_scores(levels, "share", [[answering(one) for one in each] for each in answers], labels)
    right = [[(one == labels).mean() for one in each] for each in answers]
    assert (curve["unit"], curve["levels"], curve["draws"]) == ("share", list(levels), draws)
    assert curve["top1"] == pytest.approx([np.mean(each) for each in right])
    assert curve["std"] == pytest.approx([statistics.stdev(e) if len(e) > 1 else 0.0 for e in right])
    wanted = [np.mean([balanced_by_loops(one, labels) for one in each]) for each in answers]
    assert curve["balanced"] == pytest.approx(wanted)
    assert curve["area"] == pytest.approx(np.mean([np.mean(each) for each in right]))
    bounds = [*zip(curve["top1"], curve["interval"], strict=True), (curve["area"], curve["area_interval"])]
    for top1, (low, high) in bounds:
        assert 0 <= low <= top1 + 1e-9
        assert top1 - 1e-9 <= high <= 1
    assert curve["interval"][0] == answering(answers[0][0])(labels)["interval"]["top1"]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_interval_is_that_of_clips_drawn_again_with_all_their_draws(seed):
    rng = np.random.default_rng(seed)
    value_n = rng.integers(4, size=150) / 3
    means = [rng.choice(value_n, size=150).mean() for _ in range(4000)]
    assert mean_interval(value_n) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.012)


def test_draws_that_say_the_same_count_once():
    """Three draws of one answer are no more certain than one."""
    labels, predicted = np.zeros(40, int), np.arange(40) % 2
    one = curve_scores((0.5,), "share", [[answering(predicted)]], labels)
    three = curve_scores((0.5,), "share", [[answering(predicted)] * 3], labels)
    assert three["interval"][0] == pytest.approx(one["interval"][0], abs=0.03)
    assert three["std"] == [0.0]


def curve(*top1: float, draws: int = 1, **others) -> dict:
    levels = [round(0.5 * place, 1) for place in range(len(top1))]
    std = [0.0, *[0.01] * (len(top1) - 1)] if draws > 1 else [0.0] * len(top1)
    own = {"unit": "share", "levels": levels, "draws": draws, "top1": list(top1), "std": std}
    return own | {"area": sum(top1) / len(top1)} | others


def result(**curves: dict) -> dict:
    return {
        "evaluator": "robustness",
        "store": "nw_ucla",
        "split": "cross_view",
        "streams": ["joint", "motion"],
        "protocol": {"probe": "linear"},
        "curves": curves,
        "baselines": {"raw": {"curves": curves}, "raw_streams": {"curves": curves}},
    }


def test_the_table_of_a_curve():
    lines = curve_tables(result(missing=curve(0.75, 0.5)), NAMES).splitlines()
    assert lines[0] == "robustness on nw_ucla, split cross_view, linear probe, top-1 in %"
    assert [line.split() for line in lines[1:]] == [
        [],
        ["joints", "missing,", "%", "0", "50", "mean"],
        ["trained", "75.0", "50.0", "62.5"],
        ["raw", "coordinates", "75.0", "50.0", "62.5"],
        ["raw", "joint+motion", "75.0", "50.0", "62.5"],
    ]
    assert len({len(line) for line in lines[2:]}) == 1


def test_the_tables_of_several_curves_and_draws():
    curves = {
        "noise": curve(0.75, 0.5, unit="metres", levels=[0.0, 0.02], draws=3),
        "rotation": curve(0.5, 0.25, unit="degrees", levels=[0.0, 90.0], draws=3),
    }
    lines = curve_tables(result(**curves), NAMES).splitlines()
    assert lines[0].endswith("top-1 in %, mean ± deviation of 3 draws")
    assert [line.split() for line in lines[2:4]] == [
        ["noise,", "cm", "0", "2", "mean"],
        ["trained", "75.0", "50.0", "±", "1.0", "62.5"],
    ]
    assert [line.split() for line in lines[7:9]] == [
        ["turned", "by", "up", "to,", "degrees", "0", "90", "mean"],
        ["trained", "50.0", "25.0", "±", "1.0", "37.5"],
    ]
    assert len({len(line) for line in lines[2:6]}) == 1


def test_classes_that_nobody_could_learn_are_named():
    whole = result(missing=curve(0.75, 0.5)) | {"unseen": [0, 2]}
    assert curve_tables(whole, NAMES).splitlines()[1] == "no training clip shows sit, throw"
