"""Linear probe: one linear layer on frozen features, by one of several named protocols."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from torch import Tensor

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.logistic import LogisticConfig, fit_logistic
from ssl_skeleton.evaluation.scores import Labels, Scorer, Scores, classification_scores
from ssl_skeleton.evaluation.softmax import Part, SoftmaxConfig, train_layers
from ssl_skeleton.training.schedule import NonNegative, Positive, StepConfig
from ssl_skeleton.training.seeds import generator


class LinearConfig(SoftmaxConfig):
    """The protocol of this project, the same for every representation and baseline.

    Features get mean 0 and variance 1 over the training part. The learning rate is the one of `rates` that
    does best on the validation part, or where the split has none on the share `held_out` of the training
    part, for each representation by itself, since what suits 512 features does not suit 10,000
    coordinates; then the probe learns from the whole training part.
    """

    name: Literal["tuned"] = "tuned"
    rates: tuple[Positive, ...] = Field(default=(0.1, 0.03, 0.01, 0.003, 0.001), min_length=1)
    held_out: float = Field(default=0.2, gt=0, lt=1)
    weight_decay: NonNegative = 1e-4
    schedule: StepConfig = StepConfig(milestones=(60, 80), factor=0.1)


class CRRLConfig(SoftmaxConfig):
    """The protocol of CRRL (Wang et al., arXiv 2111.11051): one rate, features as they are."""

    name: Literal["crrl"] = "crrl"
    lr: Positive = 3.0


class AimCLRConfig(SoftmaxConfig):
    """The protocol of AimCLR (Guo et al., arXiv 2112.03590): one rate, features as they are."""

    name: Literal["aimclr"] = "aimclr"
    lr: Positive = 3.0


class CMDConfig(SoftmaxConfig):
    """The protocol of CMD (Mao et al., arXiv 2208.12448): one rate, features as they are."""

    name: Literal["cmd"] = "cmd"
    epochs: int = Field(default=80, ge=1)
    batch: int = Field(default=64, ge=1)
    lr: Positive = 0.1
    schedule: StepConfig = StepConfig(milestones=(50, 70), factor=0.1)


def _named(tree: Any) -> Any:
    """A section that names no protocol is of the first one."""
    return {"name": "tuned", **tree} if isinstance(tree, dict) else tree


PublishedConfig = CRRLConfig | AimCLRConfig | CMDConfig
AnyLinear = Annotated[
    Annotated[LinearConfig | PublishedConfig | LogisticConfig, Field(discriminator="name")],
    BeforeValidator(_named),
]


def linear_probe(features: Features, classes: int, config: AnyLinear, seed: int) -> Scorer:
    """The answers of a probe for the test clips; of all their views, where there are several."""
    return learn_linear(features, classes, config, seed)(_shown(features))


def learn_linear(features: Features, classes: int, config: AnyLinear, seed: int) -> "LinearAnswers":
    """A probe that has learned from the training part; UserError when that shows one class only."""
    check_classes(features.train_labels)
    prepare = _preparation(features.train, standardise=not isinstance(config, PublishedConfig))
    train, validation = (prepare(features.train), torch.from_numpy(features.train_labels)), None
    if features.validation is not None and features.validation_labels is not None:
        validation = prepare(features.validation), torch.from_numpy(features.validation_labels)
    probe = _Probe(classes, config, seed)
    value = probe.choose(train, validation)
    taken = {"strength" if isinstance(config, LogisticConfig) else "rate": value}
    return LinearAnswers(probe.learn(train, (value,))[0], prepare, features.train_labels, taken)


def check_classes(labels: Labels) -> None:
    """Raise UserError when the labels (N,) of a training part are of one class."""
    if len(np.unique(labels)) < 2:
        raise UserError(
            "the clips of the training part are all of one class, but a linear probe needs two; choose "
            "another split"
        )


def _shown(features: Features) -> list[NDArray[np.float32]]:
    return [features.test] if features.views is None else list(features.views)


@dataclass(frozen=True)
class LinearAnswers:
    """A layer (C, E) that has learned from clips with these labels (N,), and the value `taken` for it.

    Called with clips, it gives its answers; of their scores, `unseen` are the classes that these clips show
    and no training clip does. All views (N, D) of a clip together give the mean of their probabilities.
    """

    layer_ce: Tensor
    prepare: Callable[[NDArray[np.float32]], Tensor]
    learned: Labels
    taken: dict[str, float]

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """The class probabilities (N, C) of the test clips by which it answers."""
        return np.exp(self.log_probabilities(_shown(features)))

    def log_probabilities(self, views: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """The logarithms of the class probabilities (N, C); they tell apart even what is nearly 0 or 1.

        UserError when the layer is no number any more.
        """
        logits_knc = torch.stack([_logits(self.prepare(view), self.layer_ce).double() for view in views])
        log_nc = logits_knc.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(views))
        if log_nc.isnan().any():
            how = ", ".join(f"{name} {value:g}" for name, value in self.taken.items())
            raise UserError(
                f"evaluation.linear: the layer has grown beyond all numbers ({how}); take a smaller rate or "
                "weight decay"
            )
        found: NDArray[np.float64] = log_nc.numpy()
        return found

    def __call__(self, views: Sequence[NDArray[np.float32]]) -> Scorer:
        """The answers for N clips."""
        log_nc = self.log_probabilities(views)
        ranking_nc = np.argsort(-log_nc, axis=1, kind="stable")

        def score(labels: Labels) -> Scores:
            unseen = np.setdiff1d(labels, self.learned).tolist()
            scores = classification_scores(ranking_nc, labels, log_nc.shape[1]) | self.taken
            return scores | ({"unseen": unseen} if unseen else {})

        return score


@dataclass(frozen=True)
class _Probe:
    """How layers learn from features, and which value of a protocol's is taken: a rate or a strength."""

    classes: int
    config: AnyLinear
    seed: int

    def learn(self, part: Part, values: Sequence[float]) -> Tensor:
        """The layers (R, C, E) that R values lead to."""
        if isinstance(self.config, LogisticConfig):
            return fit_logistic(part, self.classes, self.config, values)
        order = generator(self.seed, "linear", "order")
        return train_layers(part, self.classes, self.config, values, order)

    def choose(self, train: Part, validation: Part | None) -> float:
        """The value that the protocol says, or that does best on clips that its layer did not learn from.

        Of equal ones it is the first, as it is where too little is left to learn from.
        """
        if isinstance(self.config, PublishedConfig):
            return self.config.lr
        values = self.config.rates if isinstance(self.config, LinearConfig) else self.config.strengths
        if validation is None:
            order = generator(self.seed, "linear", "held out")
            kept, held = hold_out(len(train[1]), self.config.held_out, order)
            train, validation = (train[0][kept], train[1][kept]), (train[0][held], train[1][held])
        if len(values) == 1 or len(np.unique(train[1])) < 2:
            return values[0]
        rows_he, label_h = validation
        logits = [_logits(rows_he, layer_ce) for layer_ce in self.learn(train, values)]
        right = [
            -1 if logits_hc.isnan().any() else int((logits_hc.argmax(dim=1) == label_h).sum())
            for logits_hc in logits
        ]
        return values[right.index(max(right))]


def hold_out(clips: int, share: float, order: torch.Generator) -> tuple[Tensor, Tensor]:
    """The numbers of the clips that are kept, and of a share that is held out: at least one."""
    order_n = torch.randperm(clips, generator=order)
    held = max(1, round(share * clips))
    return order_n[held:], order_n[:held]


def _preparation(train: NDArray[np.float32], *, standardise: bool) -> Callable[[NDArray[np.float32]], Tensor]:
    """Gives a part (N, D) a last column of ones; before, mean 0 and variance 1 over the training part.

    Constant features become 0.
    """
    mean, deviation = torch.zeros(train.shape[1]), torch.ones(train.shape[1])
    if standardise:
        variance, mean = torch.var_mean(torch.from_numpy(train), dim=0, correction=0)
        deviation = torch.where(variance > 1e-16, variance.sqrt(), 1.0)

    def prepare(part: NDArray[np.float32]) -> Tensor:
        x_ne = torch.ones(len(part), part.shape[1] + 1)
        torch.sub(torch.from_numpy(part), mean, out=x_ne[:, :-1]).div_(deviation)
        return x_ne

    return prepare


def _logits(x_ne: Tensor, layer_ce: Tensor) -> Tensor:
    return x_ne.to(layer_ce.dtype) @ layer_ce.T
