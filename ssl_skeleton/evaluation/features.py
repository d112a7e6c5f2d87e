"""Features of whole clips, extracted once; every probe works on these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.pooling import Pooling, represent
from ssl_skeleton.errors import UserError

RAW_FRAMES = 32  # the raw-coordinate baseline resamples clips to so many frames when the recipe does not


@dataclass(frozen=True)
class Features:
    """Features (N, D) and labels (N,) of the two parts of a split."""

    train: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]


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
    return _both_parts(packed, split, represent_all, batch)


def raw_features(
    packed: PackedClips, split: Split, sampling: SamplingConfig, view: ViewConfig, batch: int = 256
) -> Features:
    """The baseline without any learning: the resampled, normalised coordinates themselves."""
    resampled = sampling.model_copy(update={"frames": sampling.frames or RAW_FRAMES})

    def flatten(index: Tensor) -> Tensor:
        return make_view(packed, index, resampled, view, None).x.flatten(1)

    return _both_parts(packed, split, flatten, batch)


@torch.no_grad()
def _both_parts(
    packed: PackedClips, split: Split, compute: Callable[[Tensor], Tensor], batch: int
) -> Features:
    def part(index: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        # Sorted by length, clips kept at their own rate are padded least.
        order = np.argsort(packed.lengths.cpu().numpy()[index], kind="stable")
        chunks = torch.split(torch.from_numpy(index[order]), batch)
        sorted_nd = torch.cat([compute(chunk).float().cpu() for chunk in chunks]).numpy()
        features = np.empty_like(sorted_nd)
        features[order] = sorted_nd
        return features, packed.labels.cpu().numpy()[index]

    features = Features(*part(split.train), *part(split.test))
    for name, array in (("training", features.train), ("test", features.test)):
        wrong = ~np.isfinite(array).all(axis=1)
        if wrong.any():
            raise UserError(f"{wrong.sum()} of {len(array)} {name} features are not finite; train again")
    if min(features.train_labels.min(), features.test_labels.min()) < 0:
        raise UserError(f"split {split.name}: some clips have no label; a probe needs labels")
    return features
