import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_skeleton.errors import UserError
from ssl_skeleton.training.schedule import AdamWConfig, CosineConfig, SGDConfig, StepConfig


@pytest.mark.parametrize(("epoch", "rate"), [(0, 1), (1.99, 1), (2, 0.1), (4.5, 0.1), (5, 0.01), (9, 0.01)])
def test_step(epoch, rate):
    assert StepConfig(milestones=(2, 5), factor=0.1).rate(epoch, 10) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(0, 1), (2.5, 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2), (5, 0.55), (10, 0.1), (11, 0.1)],
)
def test_cosine(epoch, rate):
    assert CosineConfig(floor=0.1).rate(epoch, 10) == pytest.approx(rate)


@pytest.mark.parametrize(("epoch", "rate"), [(0, 0), (1, 0.25), (3, 0.75), (4, 1)])
@pytest.mark.parametrize("config", [StepConfig(warmup=4.0), CosineConfig(warmup=4.0)])
def test_warmup(config, epoch, rate):
    assert config.rate(epoch, 10) == pytest.approx(rate)


def test_the_cosine_begins_after_the_warmup():
    config = CosineConfig(warmup=2.0)
    assert config.rate(6, 10) == pytest.approx(0.5)
    assert config.rate(10, 10) == pytest.approx(0)


@given(data=st.data(), epochs=st.integers(1, 400), warmup=st.floats(0, 20))
def test_a_rate_is_a_share(data, epochs, warmup):
    milestones = tuple(sorted(data.draw(st.sets(st.integers(1, 400), max_size=4))))
    factor = data.draw(st.floats(0.01, 1))
    progress = data.draw(st.integers(0, 1000 * epochs - 1)) / 1000
    step = StepConfig(milestones=milestones, factor=factor, warmup=warmup)
    for config in (step, CosineConfig(warmup=warmup), CosineConfig(warmup=warmup, floor=1.0)):
        rate = config.rate(progress, epochs)
        assert 0 <= rate <= 1
        assert rate > 0 or (warmup and progress == 0)


@given(epochs=st.integers(1, 100), one=st.floats(0, 1), other=st.floats(0, 1))
def test_the_cosine_only_falls(epochs, one, other):
    early, late = sorted([one * epochs, other * epochs])
    assert CosineConfig().rate(early, epochs) >= CosineConfig().rate(late, epochs)


@pytest.mark.parametrize("milestones", [[3, 3], [5, 2], [0]])
def test_milestones_rise(milestones):
    with pytest.raises(UserError, match="milestones: must rise from 1 on"):
        StepConfig.from_tree({"milestones": milestones}, "recipe")


def test_optimisers_get_their_options():
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    sgd = SGDConfig(lr=0.3, momentum=0.5, nesterov=True).build(parameters).param_groups[0]
    assert (sgd["lr"], sgd["momentum"], sgd["weight_decay"], sgd["nesterov"]) == (0.3, 0.5, 1e-4, True)
    adamw = AdamWConfig(weight_decay=0.2).build(parameters)
    assert isinstance(adamw, torch.optim.AdamW)
    assert (adamw.param_groups[0]["lr"], adamw.param_groups[0]["weight_decay"]) == (1e-3, 0.2)


@pytest.mark.parametrize(
    ("config", "tree", "message"),
    [
        (SGDConfig, {"nesterov": True, "momentum": 0.0}, "nesterov: needs a momentum above 0"),
        (SGDConfig, {"momentum": 1.0}, "momentum: "),
        (SGDConfig, {"momentum": -0.1}, "momentum: "),
        (AdamWConfig, {"betas": [1.0, 0.999]}, r"betas\.0: "),
        (AdamWConfig, {"betas": [0.9, 1.0]}, r"betas\.1: "),
        (AdamWConfig, {"betas": [0.9, -0.1]}, r"betas\.1: "),
        (AdamWConfig, {"betas": [0.9]}, "betas"),
    ],
)
def test_options_that_an_optimiser_would_refuse(config, tree, message):
    with pytest.raises(UserError, match=message):
        config.from_tree(tree, "recipe")


def test_options_at_their_bounds():
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    AdamWConfig.from_tree({"betas": [0.0, 0.0]}, "recipe").build(parameters)
    SGDConfig.from_tree({"momentum": 0.0}, "recipe").build(parameters)
