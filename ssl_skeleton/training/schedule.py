"""Optimisers and learning-rate schedules; a schedule is a pure function of the progress."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from ssl_skeleton.config import Config

NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class SGDConfig(Config):
    """Stochastic gradient descent; the defaults are CRRL's."""

    name: Literal["sgd"] = "sgd"
    lr: Positive = 0.05
    momentum: Decay = 0.9
    weight_decay: NonNegative = 1e-4
    nesterov: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum above 0")
        return self

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser for `parameters`, which are on their device already."""
        parameters = list(parameters)
        options = self.model_dump(exclude={"name"})
        return torch.optim.SGD(parameters, **options, fused=_has_fused(parameters))


class AdamWConfig(Config):
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101)."""

    name: Literal["adamw"] = "adamw"
    lr: Positive = 1e-3
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: NonNegative = 1e-2

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser for `parameters`, which are on their device already."""
        parameters = list(parameters)
        options = self.model_dump(exclude={"name"})
        return torch.optim.AdamW(parameters, **options, fused=_has_fused(parameters))


class StepConfig(Config):
    """The rate is multiplied by `factor` after each of the epochs in `milestones`."""

    name: Literal["step"] = "step"
    milestones: tuple[int, ...] = ()
    factor: Positive = 0.1
    warmup: NonNegative = 0.0  # epochs of linear rise from zero

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(later <= earlier for earlier, later in pairwise((0, *self.milestones))):
            raise ValueError("milestones: must rise from 1 on")
        return self

    def rate(self, epoch: float, epochs: int) -> float:
        """The share of the base rate at `epoch` (a fraction within an epoch) of `epochs`."""
        passed = sum(epoch >= milestone for milestone in self.milestones)
        return _warmup(epoch, self.warmup) * self.factor**passed


class CosineConfig(Config):
    """The rate falls along half a cosine to `floor` (a share of the base rate) at the end."""

    name: Literal["cosine"] = "cosine"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup: NonNegative = 0.0  # epochs of linear rise from zero; at most half of all

    def rate(self, epoch: float, epochs: int) -> float:
        """The share of the base rate at `epoch` (a fraction within an epoch) of `epochs`."""
        warmup = min(self.warmup, epochs / 2)  # a short trial should learn something too
        if epoch < warmup:
            return _warmup(epoch, warmup)
        share = (epoch - warmup) / max(epochs - warmup, 1e-9)
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def _warmup(epoch: float, warmup: float) -> float:
    return min(1.0, epoch / warmup) if warmup else 1.0


def _has_fused(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether torch updates all of them in one kernel that reads and writes each number once."""
    return all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)


Optimiser = Annotated[SGDConfig | AdamWConfig, Field(discriminator="name")]
Schedule = Annotated[StepConfig | CosineConfig, Field(discriminator="name")]
