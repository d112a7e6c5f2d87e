"""Features of whole clips, extracted once; every probe works on these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_skeleton import ranks
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.pooling import Pooling, represent
from ssl_skeleton.errors import UserError

RAW_FRAMES = 32  # of the raw-coordinate baselines, whatever the recipe's own


@dataclass(frozen=True)
class Features:
    """Features (N, D) and labels (N,) of the parts of a split; most splits have no validation part."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    validation: NDArray[np.float32] | None = None
    validation_labels: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Source:
    """An encoder and the view through which it sees clips."""

    encoder: Encoder
    view: ViewConfig
    pooling: Pooling


def encoder_features(
    packed: PackedClips, split: Split, sampling: SamplingConfig, sources: Sequence[Source], batch: int = 256
) -> Features:
    """Pooled features of frozen encoders in eval mode, several one after another along D."""

    def represent_all(index: Tensor) -> Tensor:
        parts = []
        for source in sources:
            clips = make_view(packed, index, sampling, source.view, None)
            parts.append(represent(source.encoder, clips, source.pooling))
        return torch.cat(parts, dim=1)

    for source in sources:
        source.encoder.to(packed.device).eval()
    return _all_parts(packed, split, represent_all, batch)


@torch.no_grad()
def calibrate_norms(
    packed: PackedClips, split: Split, sampling: SamplingConfig, source: Source, batch: int = 256
) -> None:
    """Give an untrained encoder's BatchNorms the statistics of the training clips.

    Any training finds them at once, so an untrained baseline without them would be a straw man.
    """
    norms = [module for module in source.encoder.modules() if isinstance(module, _BatchNorm)]
    source.encoder.to(packed.device).eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches, each a sample of all clips of about the same size
        norm.train()
    batches = -(-len(split.train) // batch)
    for first in range(batches if norms else 0):
        clips = make_view(packed, torch.from_numpy(split.train[first::batches]), sampling, source.view, None)
        with ranks.alone():  # each of them sees all clips
            source.encoder(clips.x, clips.lengths)
    source.encoder.eval()


def raw_features(
    packed: PackedClips, split: Split, sampling: SamplingConfig, view: ViewConfig, batch: int = 256
) -> Features:
    """The baseline without any learning: the normalised coordinates, resampled to 32 frames.

    So they are where an encoder sees looped clips: of those, 32 frames would be the beginning alone.
    """

    def flatten(index: Tensor) -> Tensor:
        return make_view(packed, index, sampling, view, None, resample=RAW_FRAMES).x.flatten(1)

    return _all_parts(packed, split, flatten, batch)


def check_labels(labels: NDArray[np.int64], split: Split) -> None:
    """Raise UserError when a split has no test part, or a clip has no label; labels (N,) are of all clips."""
    if not len(split.test):
        raise UserError(
            f"split {split.name}: has no test part, which a probe needs; choose another data.split (own "
            "recordings get theirs from `splits` in the about file)"
        )
    if labels[np.concatenate([split.train, split.validation, split.test])].min() < 0:
        raise UserError(f"split {split.name}: some clips have no label; a probe needs labels")


def _all_parts(
    packed: PackedClips, split: Split, compute: Callable[[Tensor], Tensor], batch: int
) -> Features:
    labels = packed.labels.cpu().numpy()
    check_labels(labels, split)
    train = compute_rows(packed, split.train, compute, batch)
    test = compute_rows(packed, split.test, compute, batch)
    features = Features(train, labels[split.train], test, labels[split.test])
    if not len(split.validation):
        return features
    validation = compute_rows(packed, split.validation, compute, batch)
    return replace(features, validation=validation, validation_labels=labels[split.validation])


@torch.no_grad()
def compute_rows(
    packed: PackedClips, index: NDArray[np.int64], compute: Callable[[Tensor], Tensor], batch: int
) -> NDArray[np.float32]:
    """The rows of `index`, computed in order of length, so that clips at their own rate are padded least.

    Ranks compute a batch each, in turn, so that every batch is what it is on one rank; all get all rows.
    """
    order = np.argsort(packed.lengths.cpu().numpy()[index], kind="stable")
    features: NDArray[np.float32] | None = None
    for begin in range(0, len(index), ranks.world_size() * batch):
        turn = order[begin : begin + ranks.world_size() * batch]
        own = turn[ranks.rank() * batch :][:batch]
        rows_nd = compute(torch.from_numpy(index[own if len(own) else turn[:1]]))[: len(own)]
        rows = ranks.gather_rows(rows_nd.float()).cpu().numpy()
        if features is None:
            features = np.empty((len(index), rows.shape[1]), dtype=np.float32)
        features[turn] = rows
    if features is None or not np.isfinite(features).all():
        raise UserError("some features are not finite: the encoder is broken; train again")
    return features
