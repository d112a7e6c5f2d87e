"""Fine-tuning: encoders and a linear classifier on them learn together from labels, all of them or a few."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.views.augment import AugmentConfig
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.data.views.view import SamplingConfig, make_views
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.classifier import Classifier, layerwise, mix, mix_rows, set_rates
from ssl_skeleton.evaluation.features import Features, Source, check_labels
from ssl_skeleton.evaluation.linear import AnyLinear, linear_probe
from ssl_skeleton.evaluation.scores import Scores, classification_scores, over_repeats
from ssl_skeleton.training.batches import epoch_order
from ssl_skeleton.training.loop import Report, Standing
from ssl_skeleton.training.position import Pace
from ssl_skeleton.training.schedule import AdamWConfig, CosineConfig, Optimiser, Schedule
from ssl_skeleton.training.seeds import derive_seed, generator

Log = list[dict[str, float]]  # mean values of every epoch

_TEST_BATCH = 256
_REPEATS_OF_FEW = 5
_LONGEST_WARMUP = 0.1  # of all epochs
_MEND = "lower evaluation.finetune.optimiser.lr"


class FinetuneConfig(Config):
    """How encoders are trained on with labels, or are trained from a random start.

    optimiser        its `lr` is that of the linear layer
    schedule         its warm-up is a tenth of all epochs at most, so that a short training learns too
    layer_decay      every layer of an encoder has this share of the rate of the layer after it, as in ULMFiT
                     (arXiv 1801.06146, Section 3.2); 1 is one rate for all
    label_smoothing  the share of a label that is spread over all classes (arXiv 1512.00567, Section 7)
    mixup            clips and labels are mixed in pairs, with shares from Beta(mixup, mixup) (arXiv
                     1710.09412); 0 mixes none
    augment          how training clips are changed; by default cropped and turned as CTR-GCN's release does
    labels           the share of each class's training clips that is learned from; one clip at least
    repeats          how often it is done, each time with other draws of labels, batches and augmentations;
                     null is 5 times with few labels, whose draw matters, and once with all of them
    """

    epochs: int = Field(default=100, ge=1)
    batch: int = Field(default=64, ge=1)
    optimiser: Optimiser = AdamWConfig()
    schedule: Schedule = CosineConfig(warmup=5.0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    augment: AugmentConfig = AugmentConfig(crop=0.5, rotate=(17.0, 17.0, 17.0))
    labels: float = Field(default=1.0, gt=0)
    repeats: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        if self.labels > 1:
            percent = f"{self.labels:g} % are {self.labels / 100:g}"
            raise ValueError(f"labels: a share of at most 1, which is all, not {self.labels:g}; {percent}")
        return self

    @property
    def times(self) -> int:
        """How often it is done."""
        return self.repeats or (_REPEATS_OF_FEW if self.labels < 1 else 1)

    def rate(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of a step, of so many in an epoch: that in its middle, which is never 0."""
        warmup = min(self.schedule.warmup, _LONGEST_WARMUP * self.epochs)
        schedule = self.schedule.model_copy(update={"warmup": warmup})
        return self.optimiser.lr * schedule.rate(epoch + (step + 0.5) / steps, self.epochs)

    def evaluator(self, *, from_scratch: bool) -> str:
        """The name of its results: `finetune`, `finetune_scratch`, with few labels `finetune_0.05`."""
        share = "" if self.labels == 1 else f"_{self.labels}"
        return f"finetune{'_scratch' if from_scratch else ''}{share}"


@dataclass(frozen=True)
class Lesson:
    """What a classifier learns: to tell `classes` apart on a split of `packed`, from its training part."""

    packed: PackedClips
    split: Split
    sampling: SamplingConfig
    classes: int
    seed: int

    def labels(self, clips: NDArray[np.int64]) -> NDArray[np.int64]:
        """The labels (N,) of clips (N,)."""
        labels: NDArray[np.int64] = self.packed.labels.cpu().numpy()[clips]
        return labels

    def draw(self, config: FinetuneConfig, repeat: int) -> NDArray[np.int64]:
        """The places in the training part of those clips whose labels are given."""
        source = generator(self.seed, "finetune", repeat, "labels")
        return draw_labelled(self.labels(self.split.train), config.labels, source)


def check_lesson(
    labels: NDArray[np.int64], split: Split, classes: Sequence[str], store: Path | None = None
) -> None:
    """Raise UserError when a classifier cannot learn a split from the labels (N,) of all clips."""
    check_labels(labels, split, store)
    where = f"{store}: split {split.name}" if store else f"split {split.name}"
    if len(np.unique(labels[split.train])) < 2:
        alone = f"training clips show '{classes[labels[split.train[0]]]}' alone"
        raise UserError(f"{where}: {alone}, but fine-tuning needs two classes; choose another data.split")
    for label in np.setdiff1d(labels[split.test], labels[split.train]):
        raise UserError(
            f"{where}: test clips show '{classes[label]}', and no training clip does, so that "
            "nobody can learn it; choose another data.split"
        )


def draw_labelled(labels: NDArray[np.int64], share: float, generator: torch.Generator) -> NDArray[np.int64]:
    """The places in `labels` (N,) of a random `share` of each class, rounded, but one at least; ascending.

    Generators of one state give a small share that is a part of a larger one.
    """
    order = torch.randperm(len(labels), generator=generator).numpy()
    chosen = []
    for label in np.unique(labels):
        places = order[labels[order] == label]
        chosen.append(places[: max(1, round(share * len(places)))])
    return np.sort(np.concatenate(chosen))


def finetune_scores(
    lesson: Lesson,
    start: Callable[[int], Sequence[Source]],
    config: FinetuneConfig,
    *,
    what: str,
    report: Report,
    keep: Callable[[Classifier], None] = lambda model: None,
) -> tuple[Scores, list[Log]]:
    """The scores after the last epoch, over all repeats; and the log of each repeat.

    `start` gives the encoders with which a repeat begins, new ones every time; `keep` is given the classifier
    of the first repeat, as it was scored.
    """
    each, logs, test = [], [], lesson.split.test
    for repeat in range(config.times):
        name = what if config.times == 1 else f"{what}, repeat {repeat + 1} of {config.times},"
        training = _Training(lesson, config, repeat, start(repeat))
        logs.append(training.train(name, report))
        ranking = training.ranking(test)
        each.append(classification_scores(ranking, lesson.labels(test), lesson.classes))
        if not repeat:
            keep(training.model)
    return over_repeats(each), logs


def probe_scores(lesson: Lesson, features: Features, config: FinetuneConfig, probe: AnyLinear) -> Scores:
    """The scores of a linear probe that learns from the same clips in every repeat.

    The first repeat with all labels is what `linear` gives; others hold out and order clips in other ways.
    """
    each, labels = [], lesson.labels(lesson.split.test)
    for repeat in range(config.times):
        kept = lesson.draw(config, repeat)
        few = replace(features, train=features.train[kept], train_labels=features.train_labels[kept])
        seed = derive_seed(lesson.seed, "finetune", repeat, "probe") if repeat else lesson.seed
        each.append(linear_probe(few, lesson.classes, probe, seed)(labels))
    return over_repeats(each)


class _Training:
    """A classifier that learns. Every random number is drawn for its repeat, epoch and step alone."""

    def __init__(
        self, lesson: Lesson, config: FinetuneConfig, repeat: int, sources: Sequence[Source]
    ) -> None:
        self.lesson, self.config, self.purpose = lesson, config, ("finetune", repeat)
        self.clips = torch.from_numpy(lesson.split.train[lesson.draw(config, repeat)])
        self.model = Classifier(sources, lesson.classes).to(lesson.packed.device)
        self.optimiser = layerwise(self.model, config.optimiser)

    def train(self, what: str, report: Report) -> Log:
        """Train to the last epoch; gives the mean values of every epoch, which choose nothing."""
        log: Log = []
        epochs, pace = self.config.epochs, Pace(self.config.epochs * len(self.clips))
        for epoch in range(epochs):
            batches = self._batches(epoch)
            for step, values in enumerate(self._steps(epoch, batches, what), 1):
                pace.add(len(batches[step - 1]))
                told = values
                if step == len(batches):
                    log.append(values | self._validated())
                    told = log[-1] | {"lr": self.optimiser.param_groups[0]["lr"]}
                    told["clips_per_second"] = pace.clips_per_second
                place = (epoch + 1, epochs, step, len(batches))
                report(Standing(what, *place, told, pace.recent, pace.seconds_left))
            pace.begin_epoch()
        return log

    @torch.no_grad()
    def ranking(self, clips: NDArray[np.int64]) -> NDArray[np.int64]:
        """The classes of clips (N,), best first, (N, classes); whole clips, not augmented."""
        self.model.eval()
        logits_nc = torch.cat(
            [self.model(self._views(index)) for index in torch.split(torch.from_numpy(clips), _TEST_BATCH)]
        )
        if not bool(logits_nc.isfinite().all()):
            raise UserError(f"the classifier's answers are not finite; {_MEND}")
        ranking: NDArray[np.int64] = logits_nc.argsort(dim=1, descending=True, stable=True).cpu().numpy()
        return ranking

    def _batches(self, epoch: int) -> Sequence[Tensor]:
        """The batches of an epoch, in an order of its own."""
        source = generator(self.lesson.seed, *self.purpose, epoch, "order")
        return torch.split(epoch_order([self.clips], source, balanced=False), self.config.batch)

    def _steps(self, epoch: int, batches: Sequence[Tensor], what: str) -> Iterator[dict[str, float]]:
        """Make the steps of an epoch; gives the mean values of its clips so far after each."""
        config, clips = self.config, 0
        loss_sum = right_sum = 0.0
        self.model.train()
        for step, index in enumerate(batches):
            set_rates(self.optimiser, config.rate(epoch, step, len(batches)), config.layer_decay)
            loss, right = self._train_step(index, epoch, step)
            if not math.isfinite(loss):
                place = f"{what} {epoch + 1}/{config.epochs}, step {step + 1}"
                raise UserError(f"{place}: the loss is not finite ({loss:g}); {_MEND}")
            clips += len(index)
            loss_sum, right_sum = loss_sum + loss * len(index), right_sum + right
            yield {"loss": loss_sum / clips, "accuracy": right_sum / clips}

    def _validated(self) -> dict[str, float]:
        """The accuracy on the validation part, where the split has one."""
        validation = self.lesson.split.validation
        if not len(validation):
            return {}
        right = self.ranking(validation)[:, 0] == self.lesson.labels(validation)
        return {"validation": float(right.mean())}

    def _train_step(self, index: Tensor, epoch: int, step: int) -> tuple[float, float]:
        """One step of the optimiser; gives the mean loss, and how many clips were told right before it.

        A mixed clip is told right when it is taken for the clip of which it has more.
        """
        purpose = (*self.purpose, epoch, step)
        torch.manual_seed(derive_seed(self.lesson.seed, *purpose, "dropout"))
        views = self._views(index, purpose)
        target_nc = functional.one_hot(views[0].label, self.lesson.classes).float()
        if self.config.mixup:
            rng = np.random.default_rng(derive_seed(self.lesson.seed, *purpose, "mixup"))
            shares = rng.beta(self.config.mixup, self.config.mixup, len(index)).astype(np.float32)
            share_n = torch.from_numpy(shares).to(target_nc.device)
            partner_n = torch.from_numpy(rng.permutation(len(index))).to(target_nc.device)
            views = [mix(clips, share_n, partner_n) for clips in views]
            target_nc = mix_rows(target_nc, share_n, partner_n)
        logits_nc = self.model(views)
        loss = functional.cross_entropy(logits_nc, target_nc, label_smoothing=self.config.label_smoothing)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        right = (logits_nc.argmax(dim=1) == target_nc.argmax(dim=1)).sum()
        values: tuple[float, float] = tuple(torch.stack([loss.detach(), right]).tolist())
        return values

    def _views(self, index: Tensor, purpose: tuple[str | int, ...] = ()) -> list[Clips]:
        """What every encoder sees of clips; with a purpose, all of them the same crop and augmentation."""
        lesson, draws = self.lesson, None
        if purpose:
            draws = Draws(generator(lesson.seed, *purpose, "view"), len(index))
        views = [source.view for source in self.model.sources]
        return make_views(lesson.packed, index, lesson.sampling, views, draws)
