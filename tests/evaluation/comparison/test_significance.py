import numpy as np
import pytest

from ssl_skeleton.evaluation.comparison.bootstrap import holm, paired_bootstrap
from ssl_skeleton.evaluation.comparison.comparable import Line, Place
from ssl_skeleton.evaluation.comparison.result_files import Scored
from ssl_skeleton.evaluation.comparison.significance import judged

TOP1 = Place("linear", "store", "split", "content", "{}", "top1", "")
LABELS = np.random.default_rng(0).integers(3, size=60)


def line(name: str, *errors: int, place: Place = TOP1) -> Line:
    """A line whose seeds make so many errors."""
    scored = {}
    for seed, count in enumerate(errors):
        wrong = np.random.default_rng(seed).permutation(60) < count
        answers = np.where(wrong, LABELS + 1, LABELS)
        share = float((answers == LABELS).mean())
        values = {"top1": {"": share}, "k": {"1": share, "5": share}, "nmi": {"": share}}
        scored[seed] = Scored(scores=values, predicted=(tuple(answers.tolist()),))
    return Line(name, [name], set(scored), scored={place: scored})


def right(errors: tuple[int, ...]) -> np.ndarray:
    wrong = [np.random.default_rng(seed).permutation(60) < count for seed, count in enumerate(errors)]
    return 1.0 - np.array(wrong)


def test_every_other_row_is_compared_with_the_reference():
    lines = [line("a", 30, 33), line("b", 10), line("c", 29, 31, 35)]
    found = judged(TOP1, lines, 0, LABELS)
    assert [cell.values for cell in found.cells] == [
        tuple(row.mean(axis=1)) for row in map(right, [(30, 33), (10,), (29, 31, 35)])
    ]
    expected = [paired_bootstrap(right(errors), right((30, 33))) for errors in ((10,), (29, 31, 35))]
    assert [cell.difference for cell in found.cells] == [None, *expected]
    assert [cell.adjusted_p for cell in found.cells[1:]] == holm([one.p for one in expected])
    assert found.reason == ""
    back = judged(TOP1, lines, 1, LABELS)
    assert back.cells[0].difference == expected[0].turned()


def test_a_single_row_is_compared_with_nothing():
    found = judged(TOP1, [line("a", 3), Line("b", ["b"], {0})], 1, "no labels")
    assert (found.cells[0].difference, found.cells[1], found.reason) == (None, None, "")


def test_without_labels_or_reference_it_says_so():
    lines = [line("a", 3), line("b", 4), Line("c", ["c"], {0})]
    assert judged(TOP1, lines, 0, "they are gone").reason == "they are gone"
    found = judged(TOP1, lines, 2, LABELS)
    assert found.reason == "c has no such score"
    assert not any(cell and cell.difference for cell in found.cells)


@pytest.mark.parametrize(("score", "key", "told"), [("k", "1", True), ("k", "5", False), ("nmi", "", False)])
def test_answers_are_behind_some_scores_alone(score, key, told):
    place = Place("knn", "store", "split", "content", "{}", score, key)
    found = judged(place, [line("a", 3, place=place), line("b", 4, place=place)], 0, LABELS)
    assert (found.cells[1].difference is not None) == told
    assert found.reason == ("" if told else "no answers are kept that give this score")


def test_answers_for_other_clips_are_not_used():
    found = judged(TOP1, [line("a", 3), line("b", 4)], 0, LABELS[:-1])
    assert found.cells[1].difference is None
    assert found.reason == "no answers are kept that give this score"
