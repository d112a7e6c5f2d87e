"""Logistic regression on frozen features, solved to its optimum: the reference without rates and epochs."""

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.softmax import Part
from ssl_skeleton.training.schedule import Positive


class LogisticConfig(Config):
    """L2 logistic regression by scikit-learn's lbfgs, on features of mean 0 and variance 1.

    strengths   of the fit, C: what the summed cross-entropy weighs beside half the squared weights; the one
                that does best on the clips held out is taken
    held_out    the share of the training part that is held out, where the split has no validation part
    iterations  at most, for each fit
    """

    name: Literal["logistic"] = "logistic"
    strengths: tuple[Positive, ...] = Field(default=(0.001, 0.01, 0.1, 1.0), min_length=1)
    held_out: float = Field(default=0.2, gt=0, lt=1)
    iterations: int = Field(default=2000, ge=1)


def fit_logistic(part: Part, classes: int, config: LogisticConfig, strengths: Sequence[float]) -> Tensor:
    """The layers (S, C, E) that are optimal for each of S strengths, float64.

    The bias costs nothing. Two of the classes at least are among the labels; those that are not have a bias
    of minus infinity.
    """
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 (slow to load, and rarely needed)
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    x_ne, label_n = part
    x_nd, labels = x_ne[:, :-1].double().numpy(), label_n.numpy()
    layer_sce = torch.zeros(len(strengths), classes, x_ne.shape[1], dtype=torch.float64)
    layer_sce[:, :, -1] = -torch.inf
    model = LogisticRegression(max_iter=config.iterations, warm_start=True)
    for layer_ce, strength in zip(layer_sce, strengths, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.set_params(C=strength).fit(x_nd, labels)
            except ConvergenceWarning:
                raise UserError(
                    f"evaluation.linear: the fit of strength {strength:g} has not ended after "
                    f"{config.iterations} iterations; raise evaluation.linear.iterations"
                ) from None
        found_ce = np.column_stack([model.coef_, model.intercept_])
        if len(found_ce) == 1:  # of two classes, how much the second one is ahead of the first
            found_ce = np.concatenate([np.zeros_like(found_ce), found_ce])
        layer_ce[torch.from_numpy(model.classes_)] = torch.from_numpy(found_ce)
    return layer_sce
