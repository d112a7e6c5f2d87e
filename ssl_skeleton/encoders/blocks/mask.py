"""What is done with the mask of the valid frames."""

import torch
from torch import Tensor


def cleared(x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
    """The features (K, T, V, C) with zeros in other than the valid frames."""
    return x_ktvc if mask_kt is None else torch.where(mask_kt[:, :, None, None], x_ktvc, 0)
