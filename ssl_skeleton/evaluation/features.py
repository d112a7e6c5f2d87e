"""Features of whole clips, extracted once; every probe works on these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_skeleton import ranks
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.views.streams import Stream
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.pooling import Pooling, represent
from ssl_skeleton.errors import UserError

RAW_FRAMES = 32  # of the raw-coordinate baselines, whatever the recipe's own
_ON_CPU, _ON_GPU = 64, 256  # clips encoded at a time: what they take on the way fits the caches of a CPU


@dataclass(frozen=True)
class Features:
    """What a probe learns from and answers for; most splits have no validation part.

    Features are (N, D), labels (N,). The labels of test clips are not among them: nobody sees those before
    all answers are given. `views` (K, N, D) are the test clips through K windows, where that is asked for.
    """

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    validation: NDArray[np.float32] | None = None
    validation_labels: NDArray[np.int64] | None = None
    views: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Source:
    """An encoder and the view through which it sees clips."""

    encoder: Encoder
    view: ViewConfig
    pooling: Pooling


@dataclass(frozen=True)
class Look:
    """How clips are shown when they are encoded: whole and unchanged, unless it says otherwise.

    `window`: where the part begins that is shown (0 is its first possible place, 1 its last), and which share
    of the clip it is. `packed`: in place of the store's clips these, such as damaged recordings; it is their
    numbers that are then given.
    """

    window: tuple[float, float] | None = None
    packed: PackedClips | None = None


WHOLE = Look()
Show = Callable[[Sequence[Stream], int | None], Clips]
"""Gives a batch of clips with these streams, resampled to so many frames where that is not left open."""
Encode = Callable[[NDArray[np.int64], Look], NDArray[np.float32]]
"""Gives the features (N, D) of the clips (N,) of a store, shown in this way."""


def encoding(
    packed: PackedClips, sampling: SamplingConfig, sources: Sequence[Source], batch: int | None = None
) -> Encode:
    """By frozen encoders in eval mode: their pooled features, several one after another along D.

    Clips are encoded `batch` at a time, by default as many as are fastest on the device.
    """
    batch = batch or (_ON_CPU if packed.device.type == "cpu" else _ON_GPU)

    def represent_all(show: Show) -> Tensor:
        parts = []
        for source in sources:
            clips = show(source.view.streams, None)
            parts.append(represent(source.encoder, clips, source.pooling))
        return torch.cat(parts, dim=1)

    for source in sources:
        source.encoder.to(packed.device).eval()
    return _encode(packed, sampling, represent_all, batch)


def raw_encoding(packed: PackedClips, sampling: SamplingConfig, view: ViewConfig, batch: int = 256) -> Encode:
    """The baseline without any learning: the normalised coordinates, resampled to 32 frames.

    So they are where an encoder sees looped clips: of those, 32 frames would be the beginning alone.
    """
    return _encode(packed, sampling, lambda show: show(view.streams, RAW_FRAMES).x.flatten(1), batch)


def split_features(
    packed: PackedClips, split: Split, encode: Encode, windows: Sequence[tuple[float, float]] = ()
) -> Features:
    """The features of all parts of a split; UserError when a probe cannot work on it.

    Of the test clips there are also those of each of the `windows`.
    """
    labels = packed.labels.cpu().numpy()
    check_labels(labels, split)
    train = encode(split.train, WHOLE)
    test = train if split.test is split.train else encode(split.test, WHOLE)
    features = Features(train, labels[split.train], test)
    if windows:
        views = [encode(split.test, Look(window)) for window in windows]
        features = replace(features, views=np.stack(views))
    if not len(split.validation):
        return features
    validation = encode(split.validation, WHOLE)
    return replace(features, validation=validation, validation_labels=labels[split.validation])


def labels_of_test(packed: PackedClips, split: Split) -> NDArray[np.int64]:
    """The labels (N,) of the test clips, for those who have their answers."""
    labels: NDArray[np.int64] = packed.labels.cpu().numpy()[split.test]
    return labels


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


def check_labels(labels: NDArray[np.int64], split: Split, store: Path | None = None) -> None:
    """Raise UserError when a split has no test part, or a clip has no label; labels (N,) are of all clips.

    The error names the `store`, where it is given.
    """
    where = f"{store}: split {split.name}" if store else f"split {split.name}"
    clips = labels[np.concatenate([split.train, split.validation, split.test])]
    if clips.max() < 0:
        raise UserError(f"{where}: no clip has a label; a probe needs labels, so prepare a store with them")
    if clips.min() < 0:
        raise UserError(f"{where}: some clips have no label; a probe needs labels")
    if not len(split.test):
        raise UserError(
            f"{where}: has no test part, which a probe needs; choose another data.split (own "
            "recordings get theirs from `splits` in the about file)"
        )


def _encode(
    packed: PackedClips, sampling: SamplingConfig, compute: Callable[[Show], Tensor], batch: int
) -> Encode:
    def encode(index: NDArray[np.int64], look: Look) -> NDArray[np.float32]:
        shown_of = packed if look.packed is None else look.packed

        def compute_clips(clip_n: Tensor) -> Tensor:
            def show(streams: Sequence[Stream], frames: int | None) -> Clips:
                view, window = ViewConfig(streams=tuple(streams)), None
                if look.window is not None:
                    window = torch.tensor([look.window]).expand(len(clip_n), 2)
                return make_view(shown_of, clip_n, sampling, view, None, resample=frames, window=window)

            return compute(show)

        return compute_rows(shown_of, index, compute_clips, batch)

    return encode


@torch.no_grad()
def compute_rows(
    packed: PackedClips, index: NDArray[np.int64], compute: Callable[[Tensor], Tensor], batch: int
) -> NDArray[np.float32]:
    """What `compute` gives for the clips `index`, in order of length, so that clips are padded least.

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
        raise UserError(
            "some features are not finite: the encoder is broken; train it again at a lower learning rate, "
            "as with stages.0.training.optimiser.lr=0.001"
        )
    return features
