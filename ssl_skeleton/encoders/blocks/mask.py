"""What is done with the mask of the valid frames."""

import torch
from torch import Tensor


def cleared(x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
    """The features (K, T, V, C) with zeros in other than the valid frames."""
    return x_ktvc if mask_kt is None else torch.where(mask_kt[:, :, None, None], x_ktvc, 0)


def strided(mask_kt: Tensor | None, stride: int) -> Tensor | None:
    """Which steps are valid, (K, T'), after a stride; a step is valid when its first frame is."""
    return None if mask_kt is None else mask_kt[:, ::stride]


def frame_count(x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor | int:
    """How many frames of features (K, T, V, C) are valid: T, or (K, 1, 1) and 1 at least."""
    return x_ktvc.shape[1] if mask_kt is None else mask_kt.sum(dim=1).clamp(min=1)[:, None, None]


def frame_mean(x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
    """The mean (K, V, C) of features (K, T, V, C) over valid frames; they are zero in others."""
    return x_ktvc.sum(dim=1) / frame_count(x_ktvc, mask_kt)
