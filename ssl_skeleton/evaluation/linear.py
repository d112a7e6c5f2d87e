"""Linear probe: one linear layer on frozen features, trained with SGD."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.config import Config
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.scores import classification_scores
from ssl_skeleton.training.schedule import StepConfig
from ssl_skeleton.training.seeds import generator

Positive = Annotated[float, Field(gt=0)]


class LinearConfig(Config):
    """The probe, the same for every representation and baseline.

    Features get mean 0 and variance 1 over the training part. The learning rate is the one of `rates` that
    does best on the share `held_out` of the training part, for each representation by itself, since what
    suits 512 features does not suit 10,000 coordinates; then the probe learns from the whole training part.
    """

    epochs: int = Field(default=100, ge=1)
    batch: int = Field(default=128, ge=1)
    rates: tuple[Positive, ...] = Field(default=(0.1, 0.03, 0.01, 0.003, 0.001), min_length=1)
    held_out: float = Field(default=0.2, gt=0, lt=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: StepConfig = StepConfig(milestones=(60, 80), factor=0.1)


def linear_scores(features: Features, classes: int, config: LinearConfig, seed: int) -> dict[str, Any]:
    """Top-1, top-5, per-class accuracy, confusion matrix and the `rate` of the probe after its last epoch."""
    train, test = _standardised(features.train, features.test)
    labels = torch.from_numpy(features.train_labels)
    rate = _best_rate(train, labels, classes, config, seed)
    layer = _train(train, labels, classes, config, rates=(rate,), seed=seed)[0]
    with torch.no_grad():
        ranking: NDArray[np.int64] = layer(test).argsort(dim=1, descending=True, stable=True).numpy()
    return {**classification_scores(ranking, features.test_labels, classes), "rate": rate}


def _standardised(train: NDArray[np.float32], test: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """Both parts, with mean 0 and variance 1 over the training part; constant features become 0."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation = np.where(deviation > 1e-8, deviation, 1.0).astype(np.float32)
    return torch.from_numpy((train - mean) / deviation), torch.from_numpy((test - mean) / deviation)


def _best_rate(train: Tensor, labels: Tensor, classes: int, config: LinearConfig, seed: int) -> float:
    """The rate with the best accuracy on held-out training clips; of equal ones the first."""
    order = torch.randperm(len(train), generator=generator(seed, "linear", "held out"))
    held = max(1, round(config.held_out * len(train)))
    if len(config.rates) == 1 or held == len(train):
        return config.rates[0]
    held_out, kept = order[:held], order[held:]
    layers = _train(train[kept], labels[kept], classes, config, rates=config.rates, seed=seed)
    with torch.no_grad():
        right = [(layer(train[held_out]).argmax(dim=1) == labels[held_out]).sum().item() for layer in layers]
    return config.rates[right.index(max(right))]


def _train(
    train: Tensor, labels: Tensor, classes: int, config: LinearConfig, *, rates: Sequence[float], seed: int
) -> list[nn.Linear]:
    """A layer for each rate after the last epoch, all on the same batches.

    They start at zero, so that only the order of batches is random.
    """
    layers = [nn.Linear(train.shape[1], classes) for _ in rates]
    groups = [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(layers, rates, strict=True)]
    for layer in layers:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    optimiser = torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    order = generator(seed, "linear", "order")
    for epoch in range(config.epochs):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * config.schedule.rate(epoch, config.epochs)
        for index in torch.split(torch.randperm(len(train), generator=order), config.batch):
            optimiser.zero_grad()
            x, target = train[index], labels[index]
            # The layers share no weight, so the gradient of the sum is each one's own.
            losses = torch.stack([functional.cross_entropy(layer(x), target) for layer in layers])
            losses.sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return layers
