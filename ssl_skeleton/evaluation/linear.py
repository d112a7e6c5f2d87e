"""Linear probe: one linear layer on frozen features, trained with SGD."""

from typing import Any

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


class LinearConfig(Config):
    """The probe, fixed beforehand and the same for every representation and baseline.

    `standardise` gives every feature mean 0 and variance 1 over the training part first, so that one learning
    rate suits features of any scale.
    """

    epochs: int = Field(default=100, ge=1)
    batch: int = Field(default=128, ge=1)
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: StepConfig = StepConfig(milestones=(60, 80), factor=0.1)
    standardise: bool = True


def linear_scores(features: Features, classes: int, config: LinearConfig, seed: int) -> dict[str, Any]:
    """Top-1, top-5, per-class accuracy and confusion matrix of the probe after its last epoch."""
    train, test = torch.from_numpy(features.train), torch.from_numpy(features.test)
    if config.standardise:
        mean, deviation = train.mean(dim=0), train.std(dim=0, correction=0)
        deviation = torch.where(deviation > 1e-8, deviation, 1.0)
        train, test = (train - mean) / deviation, (test - mean) / deviation
    layer = _train(train, torch.from_numpy(features.train_labels), classes, config, seed)
    with torch.no_grad():
        ranking: NDArray[np.int64] = layer(test).argsort(dim=1, descending=True, stable=True).numpy()
    return classification_scores(ranking, features.test_labels, classes)


def _train(train: Tensor, labels: Tensor, classes: int, config: LinearConfig, seed: int) -> nn.Linear:
    """The layer after the last epoch; it starts at zero, so that only the order of batches is random."""
    layer = nn.Linear(train.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimiser = torch.optim.SGD(
        layer.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    order = torch.Generator().manual_seed(seed)
    for epoch in range(config.epochs):
        for group in optimiser.param_groups:
            group["lr"] = config.lr * config.schedule.rate(epoch, config.epochs)
        for index in torch.split(torch.randperm(len(train), generator=order), config.batch):
            optimiser.zero_grad()
            functional.cross_entropy(layer(train[index]), labels[index]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return layer
