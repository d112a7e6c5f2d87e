"""Whether one method is better than another: a paired bootstrap over test clips and over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.evaluation.scores import percentile_interval, redrawn_means

Right = NDArray[np.float64]
"""How right the answers are (S, N), by seed and test clip: 1 or 0, or the share of several repeats."""

DRAWS = 10_000
_NOUGHT = 1e-12  # sums of shares that should be equal differ by less


@dataclass(frozen=True)
class Difference:
    """How much more one method gets right than another, as a share of all clips.

    `low` and `high` are the ends of the 95 % interval, `p` is two-sided: how often so large a difference
    comes about between methods that are equally good.
    """

    mean: float
    low: float
    high: float
    p: float

    def turned(self) -> "Difference":
        """The difference seen from the other method."""
        return Difference(-self.mean, -self.high, -self.low, self.p)


def paired_bootstrap(one_sn: Right, other_sn: Right, draws: int = DRAWS) -> Difference:
    """How much more of the same N clips `one` gets right than `other`, each with seeds of its own number.

    A draw has two parts. Clips are drawn with replacement, the same ones for both methods (Efron &
    Tibshirani, An Introduction to the Bootstrap, 1993; Koehn, EMNLP 2004), and each counts by the
    mean over the seeds. Where a method has several seeds, these are drawn with replacement as well, and how
    far their accuracy goes from that of all of them is added; n deviations are scaled by sqrt(n / (n - 1)),
    without which few seeds would seem to vary less than they do (Rao & Wu, JASA 83, 1988). With one seed
    nothing is known of other seeds, and the result is about this very encoder.

    The two parts are drawn apart since together they would count three times what varies from answer to
    answer (Owen, Annals of Applied Statistics 1, 2007), and apart twice: the interval is rather too wide.
    The interval is that of percentiles, and p the level at which it would just touch 0, where draws of
    exactly 0 count on both sides and one draw is added (Davison & Hinkley, Bootstrap Methods, 1997, 4.2).
    """
    if one_sn.tobytes() > other_sn.tobytes():  # so that numbers do not hang on who is named first
        return paired_bootstrap(other_sn, one_sn, draws).turned()
    rng = np.random.default_rng(0)
    drawn = redrawn_means(rng, one_sn.mean(axis=0) - other_sn.mean(axis=0), draws, places=12)
    drawn += _seeds_again(rng, one_sn.mean(axis=1), draws) - _seeds_again(rng, other_sn.mean(axis=1), draws)
    low, high = percentile_interval(drawn)
    rarer = min((drawn < _NOUGHT).sum(), (drawn > -_NOUGHT).sum())
    p = min(1.0, 2 * (int(rarer) + 1) / (draws + 1))
    return Difference(float(one_sn.mean() - other_sn.mean()), low, high, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p of each of several tests such that any is wrongly small no more often than one alone would be.

    The smallest of n is multiplied by n, the next by n - 1, and so on; none gets smaller than one before it
    (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def _seeds_again(rng: np.random.Generator, value_s: NDArray[np.float64], draws: int) -> NDArray[np.float64]:
    """How far the mean (draws,) of seeds drawn with replacement goes from that of all; 0 for one seed."""
    seeds = len(value_s)
    if seeds == 1:
        return np.zeros(draws)
    deviation_s = (value_s - value_s.mean()) * np.sqrt(seeds / (seeds - 1))
    means: NDArray[np.float64] = deviation_s[rng.integers(seeds, size=(draws, seeds))].mean(axis=1)
    return means
