import math
import signal
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.evaluation.softmax import SoftmaxConfig, train_layers


def lesson(clips: int, dim: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features (N, D) and labels (N,)."""
    source = torch.Generator().manual_seed(seed)
    x_nd = torch.randn(clips, dim, generator=source, dtype=torch.float64)
    return x_nd, torch.randint(classes, (clips,), generator=source)


def with_ones(x_nd: Tensor) -> Tensor:
    return torch.cat([x_nd, x_nd.new_ones(len(x_nd), 1)], dim=1)


def found(x_nd: Tensor, labels: Tensor, classes: int, config: SoftmaxConfig, rates: list[float]) -> Tensor:
    order = torch.Generator().manual_seed(7)
    return train_layers((with_ones(x_nd), labels), classes, config, rates, order)


def textbook(
    x_nd: Tensor, labels: Tensor, classes: int, config: SoftmaxConfig, rate: float
) -> tuple[Tensor, Tensor]:
    """One layer in the usual form: nn.Linear, autograd and torch.optim.SGD, a batch after another."""
    layer = nn.Linear(x_nd.shape[1], classes).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimiser = torch.optim.SGD(
        layer.parameters(), lr=rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    source = torch.Generator().manual_seed(7)
    for epoch in range(config.epochs):
        passed = [milestone for milestone in config.schedule.milestones if epoch >= milestone]
        optimiser.param_groups[0]["lr"] = rate * config.schedule.factor ** len(passed)
        order = torch.randperm(len(x_nd), generator=source).tolist()
        for begin in range(0, len(order), config.batch):
            batch = order[begin : begin + config.batch]
            loss = functional.cross_entropy(layer(x_nd[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return layer.weight.detach(), layer.bias.detach()


@settings(max_examples=25, deadline=None)
@given(
    clips=st.integers(1, 20),
    sizes=st.tuples(st.integers(1, 6), st.integers(2, 7)),
    batch=st.integers(1, 25),
    inertia=st.tuples(st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 1e-4, 0.1])),
    seed=st.integers(0, 999),
)
def test_every_layer_is_what_sgd_on_it_alone_gives(clips, sizes, batch, inertia, seed):
    dim, classes = sizes
    x_nd, labels = lesson(clips, dim, classes, seed)
    config = SoftmaxConfig.from_tree(
        {
            "name": "any",
            "epochs": 5,
            "batch": batch,
            "momentum": inertia[0],
            "weight_decay": inertia[1],
            "schedule": {"milestones": [2, 4], "factor": 0.3},
        },
        "probe",
    )
    rates = [3.0, 0.1, 0.01]
    layers = found(x_nd, labels, classes, config, rates)
    assert layers.dtype == torch.float64
    for layer_ce, rate in zip(layers, rates, strict=True):
        weight_cd, bias_c = textbook(x_nd, labels, classes, config, rate)
        torch.testing.assert_close(layer_ce[:, :-1], weight_cd, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(layer_ce[:, -1], bias_c, rtol=1e-9, atol=1e-11)


def test_a_first_step_goes_down_the_gradient():
    x_nd, labels = lesson(12, 4, 3, 0)
    config = SoftmaxConfig(name="any", epochs=1, batch=12)
    (layer_ce,) = found(x_nd, labels, 3, config, [0.5])
    weight_ce = torch.zeros(3, 5, dtype=torch.float64, requires_grad=True)
    loss = functional.cross_entropy(with_ones(x_nd) @ weight_ce.T, labels)
    assert loss.item() == pytest.approx(math.log(3))
    (gradient_ce,) = torch.autograd.grad(loss, weight_ce)
    torch.testing.assert_close(layer_ce, -0.5 * gradient_ce)


def test_layers_do_not_meet():
    """A rate whose layer goes astray leaves the others as they are without it."""
    x_nd, labels = lesson(30, 5, 4, 1)
    config = SoftmaxConfig(name="any", epochs=8, batch=7, weight_decay=0.01)
    together = found(x_nd, labels, 4, config, [1e6, 0.1, 0.03])
    alone = found(x_nd, labels, 4, config, [0.1])
    torch.testing.assert_close(together[1], alone[0])


def test_float32_is_near_float64():
    x_nd, labels = lesson(200, 16, 5, 2)
    config = SoftmaxConfig(name="any", epochs=20, batch=32, weight_decay=1e-4)
    wide = found(x_nd, labels, 5, config, [0.1, 0.01])
    narrow = found(x_nd.float(), labels, 5, config, [0.1, 0.01])
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_threads_share_the_layers(threads):
    x_nd, labels = lesson(60, 6, 4, 3)
    config, rates = SoftmaxConfig(name="any", epochs=6, batch=16), [1.0, 0.3, 0.1, 0.03, 0.01]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = found(x_nd, labels, 4, config, rates)
        torch.set_num_threads(threads)
        shared = found(x_nd, labels, 4, config, rates)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(shared, alone)


def test_a_signal_ends_the_training_at_once():
    """While threads train for hours, the main one is told to end."""
    before, others = torch.get_num_threads(), threading.active_count()
    x_nd, labels = lesson(2000, 64, 10, 0)
    config = SoftmaxConfig(name="any", epochs=10**6, batch=100)
    handler = signal.signal(signal.SIGALRM, lambda number, frame: sys.exit(3))
    try:
        torch.set_num_threads(2)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(SystemExit):
            found(x_nd, labels, 10, config, [0.1, 0.01])
        assert torch.get_num_threads() == 2
        assert threading.active_count() == others
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        torch.set_num_threads(before)
