"""Linear layers trained with SGD on frozen features, one for every learning rate, all in one pass."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import torch
from pydantic import Field
from torch import Generator, Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.training.schedule import Decay, NonNegative, StepConfig


class SoftmaxConfig(Config):
    """A linear layer under the cross-entropy of its softmax, trained with SGD as torch.optim.SGD does it."""

    name: str
    epochs: int = Field(default=100, ge=1)
    batch: int = Field(default=128, ge=1)
    momentum: Decay = 0.9
    weight_decay: NonNegative = 0.0
    schedule: StepConfig = StepConfig(milestones=(80,), factor=0.1)


Part = tuple[Tensor, Tensor]
"""Features (N, E), of which the last is 1, so that its weight is the bias; and labels (N,)."""


def train_layers(
    part: Part, classes: int, config: SoftmaxConfig, rates: Sequence[float], order: Generator
) -> Tensor:
    """The layers (R, C, E) after the last epoch, one for each of R rates, all on the same batches.

    They start at zero: only the order of batches is random.

    A step is short, some 0.3 ms, and threads that share one wait for each other more than they gain, above
    all beside other work. So every thread trains some of the layers by itself, from its own copy of `order`.
    """
    threads, stop = torch.get_num_threads(), Event()
    groups = [rates[first::threads] for first in range(min(threads, len(rates)))]
    train = partial(_train_together, part, classes, config, stop=stop)
    torch.set_num_threads(1)  # in each thread that begins after this, too
    try:
        with ThreadPoolExecutor(len(groups)) as pool:
            try:
                found = list(pool.map(train, groups, [order.clone_state() for _ in groups]))
            finally:
                stop.set()  # of threads that still run, for a signal ended the wait for them
    finally:
        torch.set_num_threads(threads)
    layer_rce = part[0].new_empty(len(rates), classes, part[0].shape[1])
    for first, some_rce in enumerate(found):
        layer_rce[first::threads] = some_rce
    return layer_rce


@torch.inference_mode()
def _train_together(
    part: Part, classes: int, config: SoftmaxConfig, rates: Sequence[float], order: Generator, *, stop: Event
) -> Tensor:
    """All layers as the rows O = R * C of one matrix, which meets each batch twice; `stop` ends it early.

    The gradient of the mean cross-entropy is (softmax - one-hot) x / B, which its product adds to what is
    left of the velocity at once. Clips come last in what they are multiplied to: a softmax over few classes
    takes ten times as long where these do. Each batch is gathered by itself, into a place that stays in the
    cache, so that features are read once an epoch.
    """
    x_ne, label_n = part
    weight_oe = x_ne.new_zeros(len(rates) * classes, x_ne.shape[1])
    velocity_oe = torch.zeros_like(weight_oe)
    rate_o1 = x_ne.new_tensor(rates).repeat_interleave(classes)[:, None]
    largest = min(config.batch, len(x_ne))
    place_be, less_r1b = x_ne.new_empty(largest, x_ne.shape[1]), x_ne.new_full((len(rates), 1, largest), -1.0)
    for epoch in range(config.epochs):
        if stop.is_set():
            break
        step_o1 = rate_o1 * config.schedule.rate(epoch, config.epochs)
        order_n = torch.randperm(len(x_ne), generator=order)
        batches = (torch.split(rows, largest) for rows in (order_n, label_n[order_n]))
        for index_b, label_b in zip(*batches, strict=True):
            batch = len(index_b)
            x_be = torch.index_select(x_ne, 0, index_b, out=place_be[:batch])
            error_rcb = (weight_oe @ x_be.T).view(len(rates), classes, batch).softmax(dim=1)
            error_rcb.scatter_add_(1, label_b.expand(len(rates), 1, batch), less_r1b[:, :, :batch])
            velocity_oe.addmm_(error_rcb.flatten(0, 1), x_be, beta=config.momentum, alpha=1 / batch)
            if config.weight_decay:
                velocity_oe.add_(weight_oe, alpha=config.weight_decay)
            weight_oe.addcmul_(velocity_oe, step_o1, value=-1)
    return weight_oe.view(len(rates), classes, -1)
