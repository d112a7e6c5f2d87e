"""Score fusion: the class probabilities of several classifiers, weighted and added."""

import itertools
import math
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ssl_skeleton.config import Config
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.linear import hold_out
from ssl_skeleton.evaluation.scores import Labels, Scorer, Scores, classification_scores
from ssl_skeleton.training.seeds import generator

Probabilities = NDArray[np.float64]  # (R, N, C) of R classifiers for N clips and C classes
Weights = tuple[float, ...]
_MOST_WEIGHTS = 10_000  # in the grid


class FusionConfig(Config):
    """How much each of several runs counts.

    Papers fix the weights: 2s-AGCN adds joints and bones alike (arXiv 1805.07694), AimCLR joints, bones and
    motions with 0.6, 0.6 and 0.4 (arXiv 2112.03590).

    weights   one a run, in their order; null weighs all alike
    choose    by what weights are chosen in place of given ones, on clips that the classifiers did not learn
              from: the mean log-likelihood of the classes of these clips, or the accuracy
    steps     chosen weights are multiples of 1/steps, or all alike
    held_out  the share of the training part that chooses, where the split has no validation part
    """

    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    choose: Literal["log_likelihood", "accuracy"] | None = None
    steps: int = Field(default=10, ge=1)
    held_out: float = Field(default=0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.weights is not None and not sum(self.weights) > 0:
            raise ValueError("weights: at least one should be above 0")
        if self.weights is not None and self.choose is not None:
            raise ValueError("choose: weights are given already; set one of both to null")
        return self

    @property
    def evaluator(self) -> str:
        """What its results are called: fuse_weighted, fuse_chosen, fuse_chosen_accuracy, or fuse."""
        ways = {
            "weighted": self.weights is not None,
            "chosen": self.choose is not None,
            "accuracy": self.choose == "accuracy",
        }
        return "_".join(["fuse", *(way for way, taken in ways.items() if taken)])

    def check_runs(self, runs: int) -> None:
        """Raise UserError when so many runs cannot be weighed in this way."""
        if self.weights is not None and len(self.weights) != runs:
            raise UserError(
                f"evaluation.fuse.weights: {len(self.weights)} for {runs} runs; give one for each, in order"
            )
        if self.choose and (count := math.comb(self.steps + runs - 1, runs - 1)) > _MOST_WEIGHTS:
            raise UserError(
                f"evaluation.fuse.steps: {self.steps} are {count} ways to weigh {runs} runs, more than "
                f"{_MOST_WEIGHTS}; take fewer steps"
            )


def fused(probabilities_rnc: Probabilities, weights: Weights) -> NDArray[np.float64]:
    """The weighted mean of the class probabilities, (N, C)."""
    share_r = np.array(weights) / sum(weights)
    mean_nc: NDArray[np.float64] = np.tensordot(share_r, probabilities_rnc, axes=1)
    return mean_nc


def fusion_scorer(probabilities_rnc: Probabilities, weights: Weights) -> Scorer:
    """The answers by the fused probabilities; with their scores stand the `weights`."""
    fused_nc = fused(probabilities_rnc, weights)
    ranking_nk = (-fused_nc).argsort(axis=1, kind="stable")

    def score(labels: Labels) -> Scores:
        scores = classification_scores(ranking_nk, labels, fused_nc.shape[1])
        return scores | {"weights": list(weights)}

    return score


def equal(runs: int) -> Weights:
    """The weights that weigh all alike."""
    return (1 / runs,) * runs


def choose_weights(probabilities_rnc: Probabilities, labels: Labels, config: FusionConfig) -> Weights:
    """The weights of the grid under which clips with known labels (N,) are told best.

    Of equally good ones those nearest to equal weights.
    """
    judge = _mean_log_likelihood if config.choose == "log_likelihood" else _accuracy
    grid = weights_grid(len(probabilities_rnc), config.steps)
    good = [judge(fused(probabilities_rnc, weights), labels) for weights in grid]
    return grid[int(np.round(good, 9).argmax())]  # rounded, so that rounding alone decides nothing


def _mean_log_likelihood(probability_nc: NDArray[np.float64], labels: Labels) -> float:
    own_n = probability_nc[np.arange(len(labels)), labels]
    return float(np.log(own_n.clip(min=np.finfo(np.float64).tiny)).mean())


def _accuracy(probability_nc: NDArray[np.float64], labels: Labels) -> float:
    return float((probability_nc.argmax(axis=1) == labels).mean())


def weights_grid(runs: int, steps: int) -> list[Weights]:
    """Equal weights, then all that are multiples of 1/steps and sum to 1, by their distance from equal ones.

    >>> weights_grid(2, 2)
    [(0.5, 0.5), (0.5, 0.5), (0.0, 1.0), (1.0, 0.0)]
    """
    bars = itertools.combinations(range(steps + runs - 1), runs - 1)
    parts = [np.diff([-1, *places, steps + runs - 1]) - 1 for places in bars]
    parts.sort(key=lambda part_r: (int((part_r**2).sum()), part_r.tolist()))
    return [equal(runs), *(tuple((part_r / steps).tolist()) for part_r in parts)]


def held_apart(features: Features, share: float, seed: int) -> tuple[Features, Labels]:
    """What classifiers learn from while weights are chosen; its test part are the clips that choose.

    Those, whose labels are given too, are the clips of the validation part, or else a `share` of the training
    part, the same for equal `seed`s whatever the features are. UserError when that leaves too few.
    """
    if features.validation is not None and features.validation_labels is not None:
        learn = Features(features.train, features.train_labels, features.validation)
        return learn, features.validation_labels
    train, labels = features.train, features.train_labels
    kept, choosing = choosing_clips(labels, share, seed)
    return Features(train[kept], labels[kept], train[choosing]), labels[choosing]


def choosing_clips(labels: Labels, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the training clips that are learned from while a share of them chooses, and of that.

    UserError where the former, whose labels are among (N,), are of fewer than two classes.
    """
    parts = hold_out(len(labels), share, generator(seed, "fuse", "held out"))
    kept, choosing = (np.sort(part.numpy()) for part in parts)
    if len(np.unique(labels[kept])) < 2:
        left = f"{len(kept)} to learn from, of one class" if len(kept) else "none to learn from"
        raise UserError(
            f"evaluation.fuse.held_out: {share} of {len(labels)} clips leaves {left}; take a smaller "
            "share, or give the weights: --weights"
        )
    return kept, choosing
