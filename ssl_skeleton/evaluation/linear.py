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
Part = tuple[Tensor, Tensor]  # features (N, D) and labels (N,)


class LinearConfig(Config):
    """The probe, the same for every representation and baseline.

    Features get mean 0 and variance 1 over the training part. The learning rate is the one of `rates` that
    does best on the validation part, or where the split has none on the share `held_out` of the training
    part, for each representation by itself, since what suits 512 features does not suit 10,000
    coordinates; then the probe learns from the whole training part.
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
    train, test = (_standardised(part, features.train) for part in (features.train, features.test))
    labels = torch.from_numpy(features.train_labels)
    if features.validation is None or features.validation_labels is None:
        kept, held_out = _hold_out(len(train), config.held_out, seed)
        learn, choose = (train[kept], labels[kept]), (train[held_out], labels[held_out])
    else:
        validation = _standardised(features.validation, features.train)
        learn, choose = (train, labels), (validation, torch.from_numpy(features.validation_labels))
    rate = _best_rate(learn, choose, classes, config, seed)
    layer = _train(train, labels, classes, config, rates=(rate,), seed=seed)[0]
    with torch.no_grad():
        ranking: NDArray[np.int64] = layer(test).argsort(dim=1, descending=True, stable=True).numpy()
    return {**classification_scores(ranking, features.test_labels, classes), "rate": rate}


def _standardised(part: NDArray[np.float32], train: NDArray[np.float32]) -> Tensor:
    """A part, with mean 0 and variance 1 over the training part; constant features become 0."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation = np.where(deviation > 1e-8, deviation, 1.0).astype(np.float32)
    return torch.from_numpy((part - mean) / deviation)


def _hold_out(clips: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """The training clips that are kept, and those that are held out: at least one."""
    order = torch.randperm(clips, generator=generator(seed, "linear", "held out"))
    held = max(1, round(share * clips))
    return order[held:], order[:held]


def _best_rate(learn: Part, choose: Part, classes: int, config: LinearConfig, seed: int) -> float:
    """The rate that, learning from one part, does best on the other; of equal ones the first."""
    if len(config.rates) == 1 or not len(learn[0]):
        return config.rates[0]
    layers = _train(*learn, classes, config, rates=config.rates, seed=seed)
    held_out, held_labels = choose
    with torch.no_grad():
        right = [(layer(held_out).argmax(dim=1) == held_labels).sum().item() for layer in layers]
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
