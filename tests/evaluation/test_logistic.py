import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.logistic import LogisticConfig, fit_logistic


def lesson(labels: list[int], dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (N, D + 1), the last of which is 1, and labels (N,)."""
    x_ne = torch.randn(len(labels), dim + 1, generator=torch.Generator().manual_seed(seed)).double()
    x_ne[:, -1] = 1
    return x_ne, torch.tensor(labels)


def slopes(layer_ce: np.ndarray, x_ne: np.ndarray, labels: np.ndarray, strength: float) -> np.ndarray:
    """The gradient of C * sum of cross-entropies + |weights|^2 / 2, clip by clip."""
    gradient_ce = layer_ce.copy()
    gradient_ce[:, -1] = 0
    for x_e, label in zip(x_ne, labels, strict=True):
        odds = np.exp(layer_ce @ x_e - (layer_ce @ x_e).max())
        error_c = odds / odds.sum()
        error_c[label] -= 1
        gradient_ce += strength * np.outer(error_c, x_e)
    return gradient_ce


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(0, 999), st.sampled_from([0.01, 0.3]))
def test_it_is_the_optimum(dim, seed, strength):
    x_ne, labels = lesson([0, 1, 2, 3] * 8, dim, seed)
    (layer_ce,) = fit_logistic((x_ne, labels), 4, LogisticConfig(), [strength])
    found = slopes(layer_ce.numpy(), x_ne.numpy(), labels.numpy(), strength)
    assert np.abs(found).max() < 5e-3 * strength * len(labels)


def test_of_two_classes_one_is_ahead():
    x_ne, labels = lesson([0, 1] * 10, 3, 0)
    (layer_ce,) = fit_logistic((x_ne, labels), 2, LogisticConfig(), [0.5])
    judge = LogisticRegression(C=0.5).fit(x_ne[:, :-1].numpy(), labels.numpy())
    found = (x_ne @ layer_ce.T).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, judge.predict_proba(x_ne[:, :-1].numpy()), atol=1e-3)


@pytest.mark.parametrize("shown", [(1, 4), (0, 2, 4)])
def test_classes_that_nobody_shows_are_never_answered(shown):
    x_ne, labels = lesson(list(shown) * 8, 3, 0)
    layers = fit_logistic((x_ne, labels), 6, LogisticConfig(), [0.1, 1.0])
    for layer_ce in layers:
        probability_nc = (x_ne @ layer_ce.T).softmax(dim=1)
        assert probability_nc.isfinite().all()
        others = sorted(set(range(6)) - set(shown))
        assert not probability_nc[:, others].any()
        assert (probability_nc[:, list(shown)] > 0).all()


def test_strengths_fitted_one_after_another_are_those_fitted_alone():
    x_ne, labels = lesson([0, 1, 2] * 12, 4, 3)
    together = fit_logistic((x_ne, labels), 3, LogisticConfig(), [0.01, 1.0])
    alone = fit_logistic((x_ne, labels), 3, LogisticConfig(), [1.0])
    torch.testing.assert_close(together[1], alone[0], rtol=2e-2, atol=5e-3)


def test_a_fit_that_does_not_end_is_named():
    x_ne, labels = lesson([0, 1, 2] * 30, 20, 0)
    with pytest.raises(UserError, match="has not ended after 2 iterations; raise"):
        fit_logistic((x_ne, labels), 3, LogisticConfig(iterations=2), [10.0])
