"""Whether features are healthy: spread over their space, and alike for two views of a clip.

It takes no labels. Each function takes features (N, D) of N clips, computes in float64, and gives a finite
number.
"""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]
_LEAST_STD, _LEAST_RANK = 0.001, 2.0
_FEWEST = 8  # clips that can be told to lie on a line: two always do


def collapse(features_nd: Rows) -> str | None:
    """How features have collapsed, in words; None when they have not.

    They hardly differ when `feature_std` is below 0.001, and they lie on a line when the `effective_rank` of
    what they differ from their mean by is below 2, of eight clips or more. Encoders with random weights are
    above both, four times and more: what their features have in common may be large, but the rest is spread.
    """
    std = feature_std(features_nd)
    if std < _LEAST_STD:
        return f"they hardly differ (feature_std {std:.2g}, below {_LEAST_STD:g})"
    rank = effective_rank(features_nd - np.mean(features_nd, axis=0, dtype=np.float64))
    if rank < _LEAST_RANK and len(features_nd) >= _FEWEST:
        return f"they lie on a line (effective rank about their mean {rank:.3g}, below {_LEAST_RANK:g})"
    return None


def feature_std(features_nd: Rows) -> float:
    """How far features spread: 0 when all point one way, 1 when every direction is equally likely.

    The standard deviation of the unit-length features over the clips, averaged over the dimensions, times
    sqrt(D). SimSiam (arXiv 2011.10566, Section 4.1) finds 0 for a collapse, and 1 / sqrt(D) before the
    scaling for features of an isotropic normal distribution.
    """
    return float(_unit(features_nd).std(axis=0).mean() * np.sqrt(features_nd.shape[1]))


def effective_rank(features_nd: Rows) -> float:
    """How many dimensions features use, from 1 to min(N, D): the exponential of an entropy.

    It is that of the singular values, scaled to a sum of 1 (Roy and Vetterli, The effective rank, EUSIPCO
    2007). RankMe (arXiv 2210.02885) shows that it tells good representations without labels. 0 when all
    features are zero.
    """
    values = np.linalg.svd(np.asarray(features_nd, np.float64), compute_uv=False)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def alignment(one_nd: Rows, other_nd: Rows) -> float:
    """How far apart two views of a clip lie: the mean squared distance of their unit-length features.

    From 0, when they are the same, to 4 (Wang and Isola, arXiv 2005.10242, Section 4.1, with alpha = 2).
    """
    return float(np.square(_unit(one_nd) - _unit(other_nd)).sum(axis=1).mean())


def uniformity(features_nd: Rows) -> float:
    """How evenly unit-length features cover their sphere: the lower, the more so; 0 when all are the same.

    The logarithm of the mean of exp(-2 d^2) over the pairs of different clips, d apart (Wang and Isola, arXiv
    2005.10242, Section 4.1, with t = 2); never below -8. 0 for a single clip, which has no pair.
    """
    clips = len(features_nd)
    if clips < 2:
        return 0.0
    unit_nd = _unit(features_nd)
    square_n = np.square(unit_nd).sum(axis=1)  # 1, but 0 for a feature of length 0
    near_nn = np.exp(-2 * (square_n[:, None] + square_n - 2 * unit_nd @ unit_nd.T).clip(min=0))
    np.fill_diagonal(near_nn, 0.0)
    return float(np.log(near_nn.sum() / (clips * (clips - 1))))


def _unit(features_nd: Rows) -> NDArray[np.float64]:
    """Features of length 1; those of length 0 stay so."""
    wide_nd = np.asarray(features_nd, np.float64)
    largest_n1 = np.abs(wide_nd).max(axis=1, keepdims=True)  # squares of it neither overflow nor vanish
    scaled_nd = wide_nd / np.where(largest_n1 > 0, largest_n1, 1.0)
    length_n1 = np.linalg.norm(scaled_nd, axis=1, keepdims=True)
    return scaled_nd / np.where(length_n1 > 0, length_n1, 1.0)
