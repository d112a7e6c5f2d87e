"""What is looked at while a stage trains; none of it reaches the training."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from ssl_skeleton.config import Config
from ssl_skeleton.data.store import Store
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.data.views.view import make_view
from ssl_skeleton.encoders.pooling import Pooling, represent
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import compute_rows
from ssl_skeleton.evaluation.health import alignment, collapse, effective_rank, feature_std, uniformity
from ssl_skeleton.evaluation.knn import leave_one_out
from ssl_skeleton.figures.projector import add_points, clip_facts
from ssl_skeleton.files import writing
from ssl_skeleton.pretext.base import INPUT, Pretext
from ssl_skeleton.training.loop import Observer
from ssl_skeleton.training.seeds import generator
from ssl_skeleton.training.task import Task

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Epochs = Annotated[int, Field(ge=0)]

_BATCH = 256
_DRAWN = 6  # clips in a picture of views
_SHARE, _FEW = 8, 32  # health looks at one clip of so many, but at so many at least


class WatchConfig(Config):
    """What is looked at while a stage trains: each after every so many epochs, and 0 is never.

    health     feature_std, effective_rank, alignment and uniformity of features (`evaluation/health.py`),
               with a warning when they collapse
    knn        knn_train: how often the nearest other training clip has a clip's own label. The labels are
               only watched: nothing that learns sees them
    projector  features as points in TensorBoard's embedding projector
    views      a picture of clips beside the views that the pretext sees of them
    clips      how many training clips are looked at, the same ones in every stage and epoch; of a small store
               health takes an eighth of all (32 at least), so that it costs little
    """

    health: Epochs = 1
    knn: Epochs = 0
    projector: Epochs = 0
    views: Epochs = 0
    clips: int = Field(default=512, ge=8)  # of fewer, features say nothing


def check_watch(config: WatchConfig, labels: Tensor) -> None:
    """Raise UserError when what is asked needs labels, and those of the training clips, (N,), are unknown."""
    if config.knn and int((labels >= 0).sum()) < 2:
        raise UserError("watch.knn: needs labels, and the training clips have none; set it to 0")


def observers(config: WatchConfig, task: Task, pooling: Pooling, stores: Sequence[Store]) -> list[Observer]:
    """What looks at a stage after its epochs, as `train` takes it; `stores` are those of `task.packed`.

    Raises UserError as `check_watch` does.
    """
    sample = _Sample(task, pooling, config.clips)
    check_watch(config, sample.labels(torch.cat(list(task.parts))))
    wanted: list[tuple[int, Observer]] = [
        (config.health if task.clips > 1 else 0, _Health(sample)),
        (config.knn, partial(_watch_knn, sample, stores)),
        (config.projector, partial(_project, sample, stores)),
        (config.views, partial(_picture, sample)),
    ]
    return [_every(epochs, observe) for epochs, observe in wanted if epochs]


def _every(epochs: int, observe: Observer) -> Observer:
    """That observer, but only after every so many epochs."""

    def observe_some(epoch: int, pretext: Pretext, board: "SummaryWriter") -> dict[str, float]:
        if epoch % epochs:
            return {}
        with writing(Path(board.log_dir), "then go on with --resume"):
            return observe(epoch, pretext, board)

    return observe_some


@dataclass(frozen=True)
class _Sample:
    """The training clips that are looked at."""

    task: Task
    pooling: Pooling
    clips: int

    def index(self, *, labelled: bool = False) -> NDArray[np.int64]:
        """Their places in `task.packed`, drawn by the run's seed; of clips with a label alone, if asked."""
        every = torch.cat(list(self.task.parts))
        order = every[torch.randperm(len(every), generator=generator(self.task.seed, "watch"))]
        chosen: NDArray[np.int64] = (order[self.labels(order) >= 0] if labelled else order).numpy()
        return chosen[: self.clips]

    def labels(self, index: Tensor) -> Tensor:
        """The labels (N,) of clips (N,), -1 where unknown."""
        return self.task.packed.labels.cpu()[index]

    def features(
        self, pretext: Pretext, index: NDArray[np.int64], draw: str | None = None
    ) -> NDArray[np.float32]:
        """Pooled features (N, D) of the kept encoder; with a `draw`, of clips augmented as the pretext does.

        A draw is the same in every epoch, so that what changes is the encoder.
        """
        task, view = self.task, pretext.views[INPUT].view
        source = generator(task.seed, "watch", draw or "")

        def compute(part: Tensor) -> Tensor:
            draws = None if draw is None else Draws(source, len(part))
            clips = make_view(task.packed, part, task.sampling, view, draws)
            return represent(pretext.encoder, clips, self.pooling)

        with _evaluating(pretext.encoder):
            return compute_rows(task.packed, index, compute, _BATCH)


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """The module in eval mode, and afterwards each part of it in the mode that it was in.

    A compiled one is not compiled again for that, which would take longer than it saves.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class _Health:
    """Numbers that tell how healthy features are, and a warning when they collapse."""

    def __init__(self, sample: _Sample) -> None:
        self._sample, self._collapsed = sample, False

    def __call__(self, epoch: int, pretext: Pretext, board: "SummaryWriter") -> dict[str, float]:
        """The numbers, of clips augmented as the pretext does."""
        index = self._sample.index()[: max(_FEW, self._sample.task.clips // _SHARE)]
        one_nd, other_nd = (self._sample.features(pretext, index, draw) for draw in ("one", "other"))
        collapsed = collapse(one_nd)
        if collapsed and not self._collapsed:
            place = f"stage {self._sample.task.name}, epoch {epoch}"
            tqdm.write(f"warning: {place}: the features have collapsed: {collapsed}", file=sys.stderr)
        self._collapsed = collapsed is not None
        return {
            "feature_std": feature_std(one_nd),
            "effective_rank": effective_rank(one_nd),
            "alignment": alignment(one_nd, other_nd),
            "uniformity": uniformity(one_nd),
        }


def _watch_knn(
    sample: _Sample, stores: Sequence[Store], epoch: int, pretext: Pretext, board: "SummaryWriter"
) -> dict[str, float]:
    """`knn_train`, the accuracy of the nearest other clip; classes of two stores are never the same."""
    index = sample.index(labelled=True)
    first_class = np.cumsum([0, *(len(store.meta.classes) for store in stores)])
    store_n = np.searchsorted(np.cumsum([len(store) for store in stores]), index, side="right")
    label_n = sample.labels(torch.from_numpy(index)).numpy() + first_class[store_n]
    return {"knn_train": leave_one_out(sample.features(pretext, index), label_n, k=1)}


def _project(
    sample: _Sample, stores: Sequence[Store], epoch: int, pretext: Pretext, board: "SummaryWriter"
) -> dict[str, float]:
    """Features as points, beside what is known of the clips."""
    index = sample.index()
    features_nd = sample.features(pretext, index)
    add_points(Path(board.log_dir), f"epoch-{epoch:04}", features_nd, clip_facts(stores, index))
    return {}


def _picture(sample: _Sample, epoch: int, pretext: Pretext, board: "SummaryWriter") -> dict[str, float]:
    """A few clips beside the views of them."""
    from ssl_skeleton.figures.views import draw_views  # noqa: PLC0415 (loads matplotlib)

    index = torch.from_numpy(sample.index()[:_DRAWN])
    board.add_figure("views", draw_views(sample.task, index, epoch), epoch)
    return {}
