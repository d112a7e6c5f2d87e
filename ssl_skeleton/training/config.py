"""How a stage trains, as a recipe says it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from ssl_skeleton.config import Config
from ssl_skeleton.training.schedule import Optimiser, Schedule, SGDConfig, StepConfig

Precision = Literal["fp32", "bf16", "fp16"]


class TrainingConfig(Config):
    """How long and how a stage trains; the defaults are CRRL's.

    batch             clips a step, of all ranks and micro-batches together
    accumulate        micro-batches a step: a large batch in little memory
    lr_of_batch       the batch that the optimiser's `lr` is meant for: another one has a rate in proportion
                      (Goyal et al., arXiv 1706.02677, Section 2.1); null takes `lr` as it is
    clip_gradient     the largest norm of all gradients together
    precision         in which encoders multiply; losses, weights and the optimiser stay in fp32
    compile           let torch compile the encoders
    checkpoint_every  epochs from one checkpoint to the next
    checkpoint_steps  steps after which there is one within an epoch too
    keep              for how many ends of epochs a checkpoint is kept
    keep_best         whether that of the epoch with the lowest mean loss is kept
    """

    epochs: int = Field(default=60, ge=1)
    batch: int = Field(default=32, ge=1)
    accumulate: int = Field(default=1, ge=1)
    optimiser: Optimiser = SGDConfig()
    lr_of_batch: int | None = Field(default=None, ge=1)
    schedule: Schedule = StepConfig(milestones=(18, 50), factor=0.5)
    clip_gradient: float | None = Field(default=None, gt=0)
    precision: Precision = "fp32"
    compile: bool = False
    checkpoint_every: int = Field(default=1, ge=1)
    checkpoint_steps: int | None = Field(default=None, ge=1)
    keep: int = Field(default=1, ge=1)
    keep_best: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.accumulate > self.batch:
            parts = f"{self.accumulate} micro-batches of a batch of {self.batch} clips"
            raise ValueError(f"accumulate: {parts}; make it {self.batch} at most")
        return self

    def rate(self, epoch: float) -> float:
        """The learning rate at `epoch`, a fraction within an epoch."""
        scale = 1.0 if self.lr_of_batch is None else self.batch / self.lr_of_batch
        return self.optimiser.lr * scale * self.schedule.rate(epoch, self.epochs)
