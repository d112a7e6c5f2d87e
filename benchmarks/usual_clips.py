"""Clips in the usual form: one after another in numpy, a DataLoader, batches sorted by length and padded."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.augment import AugmentConfig

Frames = NDArray[np.float32]  # (T, V, C), or (T, V * C) once it is a view
Streams = Sequence[str]
Views = Sequence[Sequence[Streams]]  # the draws of a clip; of each the views; of each the streams


@dataclass(frozen=True)
class Padded:
    """A batch, the longest clips first: views (N, T, V * C), the first also reversed, and lengths (N,)."""

    views: Sequence[Tensor]
    backwards: Tensor
    lengths: Tensor


class UsualClips(Dataset[list[Frames]]):
    """Clips (T, V, 3), drawn anew whenever one is asked for: cut, resampled, centred, turned and sheared.

    Without `frames` they keep all their own frames.
    """

    def __init__(
        self, clips: Sequence[Frames], views: Views, change: AugmentConfig, frames: int | None
    ) -> None:
        self.clips, self.views, self.change, self.frames = clips, views, change, frames
        self.angles = np.deg2rad(change.rotate)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> list[Frames]:
        """The views of one clip, (T, V * C) each."""
        found = []
        for streams_of_views in self.views:
            x_tvc = self.clips[index]
            if self.frames is not None:
                x_tvc = self._cut(x_tvc, self.frames)
            x_tvc = (x_tvc - x_tvc[0, 0]) @ self._matrix().T
            found += [_streams(x_tvc, streams) for streams in streams_of_views]
        return found

    def _cut(self, x_tvc: Frames, frames: int) -> Frames:
        """A random window, resampled by linear interpolation."""
        span = max(1, int(len(x_tvc) * np.random.uniform(self.change.crop, 1)))  # noqa: NPY002 - as is usual
        start = np.random.randint(0, len(x_tvc) - span + 1)  # noqa: NPY002
        place = start + np.linspace(0, span - 1, frames)
        before = place.astype(int)
        share = (place - before)[:, None, None].astype(np.float32)
        after = np.minimum(before + 1, start + span - 1)
        cut: Frames = (1 - share) * x_tvc[before] + share * x_tvc[after]
        return cut

    def _matrix(self) -> Frames:
        """A rotation after a shear, (3, 3)."""
        a, b, c = np.random.uniform(-self.angles, self.angles)  # noqa: NPY002
        x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
        y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
        shear = np.random.uniform(-self.change.shear, self.change.shear, (3, 3))  # noqa: NPY002
        np.fill_diagonal(shear, 1)
        matrix: Frames = (z @ y @ x @ shear).astype(np.float32)
        return matrix


def _streams(x_tvc: Frames, names: Sequence[str]) -> Frames:
    motion = np.zeros_like(x_tvc)
    motion[:-1] = x_tvc[1:] - x_tvc[:-1]
    parts = [motion if name == "motion" else x_tvc for name in names]
    x_ti: Frames = np.concatenate(parts, axis=2).reshape(len(x_tvc), -1)
    return x_ti


def collate(samples: Sequence[list[Frames]]) -> Padded:
    """Sort by length, the longest first, and pad with zeros."""
    samples = sorted(samples, key=lambda views: -len(views[0]))
    views = [
        pad_sequence([torch.from_numpy(x_ti) for x_ti in view], batch_first=True)
        for view in zip(*samples, strict=True)
    ]
    reversed_ti = [torch.from_numpy(sample[0][::-1].copy()) for sample in samples]
    lengths = torch.tensor([len(sample[0]) for sample in samples])
    return Padded(views, pad_sequence(reversed_ti, batch_first=True), lengths)


def padded(views: Sequence[Clips]) -> Padded:
    """The same from views of the package, all of the same lengths, the longest first."""
    tensors = [clips.x.permute(0, 2, 3, 1, 4).flatten(2) for clips in views]
    lengths = views[0].lengths.cpu()
    backwards = torch.zeros_like(tensors[0])
    for x_ti, into_ti, length in zip(tensors[0], backwards, lengths.tolist(), strict=True):
        into_ti[:length] = x_ti[:length].flip(0)
    return Padded(tensors, backwards, lengths)
