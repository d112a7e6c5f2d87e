"""Scores of a classifier from its ranking of the classes."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Scores = dict[str, Any]
Scorer = Callable[[Labels], Scores]
"""What an evaluator gives: its answers, which only wait for the labels (N,) of the test clips."""

DRAWS = 2000  # of the bootstrap
_TAIL = (0.025, 0.975)
_AT_ONCE = 1 << 24  # counts in memory


def classification_scores(ranking_nk: NDArray[np.int64], labels: Labels, classes: int) -> Scores:
    """Scores from each clip's classes, best first (N, K), and its label (N,).

    `top1` and `top5` (when there are more than five classes) are shares of all clips, `balanced` the mean of
    the shares of each class, `per_class` those shares (null for a class without clips), `confusion` counts
    with the true class as row, `predicted` the first class of every clip. `interval` holds the 95 % bootstrap
    intervals of the shares (`intervals`).
    """
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (labels, ranking_nk[:, 0]), 1)
    totals, right = confusion.sum(axis=1), confusion.diagonal()
    scores: Scores = {"top1": float(right.sum() / len(labels))}
    if classes > 5 and ranking_nk.shape[1] >= 5:
        scores["top5"] = float((ranking_nk[:, :5] == labels[:, None]).any(axis=1).mean())
    per_class = [float(hit / total) if total else None for hit, total in zip(right, totals, strict=True)]
    scores["balanced"] = float(np.mean([share for share in per_class if share is not None]))
    scores["interval"] = intervals(confusion, scores.get("top5"))
    return scores | {
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "predicted": ranking_nk[:, 0].tolist(),
    }


def intervals(confusion: NDArray[np.int64], top5: float | None = None) -> dict[str, list[float]]:
    """The 95 % percentile intervals of `top1`, `balanced` and `top5` when clips are drawn again.

    Drawing N clips with replacement (Efron, Ann. Statist. 7, 1979) is drawing how many of each class are
    right and wrong from a multinomial distribution, or how many are right at all from a binomial one.
    """
    rng, clips = np.random.default_rng(0), int(confusion.sum())
    right_c, clips_c = confusion.diagonal(), confusion.sum(axis=1)
    counts = np.concatenate([right_c, clips_c - right_c])
    right, wrong = np.split(rng.multinomial(clips, counts / clips, DRAWS), 2, axis=1)
    totals = right + wrong
    share_c = right_c / np.maximum(clips_c, 1)  # of a class that was not drawn: it counts as it is
    share_dc = np.where(totals > 0, right / np.maximum(totals, 1), share_c)
    shares = {"top1": right.sum(axis=1) / clips, "balanced": share_dc[:, clips_c > 0].mean(axis=1)}
    if top5 is not None:
        shares["top5"] = rng.binomial(clips, top5, DRAWS) / clips
    return {name: percentile_interval(values) for name, values in shares.items()}


def percentile_interval(drawn: NDArray[np.float64]) -> list[float]:
    """The ends of the 95 % interval of what the draws of a bootstrap gave (Efron, Ann. Statist. 7, 1979)."""
    interval: list[float] = np.quantile(drawn, _TAIL).tolist()
    return interval


def redrawn_means(
    rng: np.random.Generator, value_n: NDArray[np.float64], draws: int, places: int
) -> NDArray[np.float64]:
    """The mean (draws,) of N values that are drawn with replacement, rounded to so many decimal places.

    Only how often each distinct value is drawn matters, and these counts are multinomial.
    """
    value_p, count_p = np.unique(value_n.round(places), return_counts=True)
    most = max(1, _AT_ONCE // len(value_p))
    sums = [
        rng.multinomial(len(value_n), count_p / len(value_n), min(most, draws - begin)) @ value_p
        for begin in range(0, draws, most)
    ]
    return np.concatenate(sums) / len(value_n)


def over_repeats(each: Sequence[Scores]) -> Scores:
    """One set of scores from those of several repeats on the same clips: means of shares, sums of counts.

    `repeats` holds every single value, and `std`, where there are several, their standard deviation (of a
    sample). Of one repeat, `interval` holds the 95 % bootstrap intervals of its shares.
    """
    names = [name for name in ("top1", "top5", "balanced") if name in each[0]]
    values = {name: [scores[name] for scores in each] for name in names}
    scores: Scores = {name: statistics.fmean(values[name]) for name in names}
    if len(each) > 1:
        scores["std"] = {name: statistics.stdev(values[name]) for name in names}
    else:
        scores["interval"] = each[0]["interval"]
    scores["repeats"] = values
    shares = zip(*(one["per_class"] for one in each), strict=True)
    scores["per_class"] = [None if None in row else statistics.fmean(row) for row in shares]
    scores["confusion"] = np.sum([one["confusion"] for one in each], axis=0).tolist()
    scores["predicted"] = [one["predicted"] for one in each]
    return scores
