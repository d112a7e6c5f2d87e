"""The multi-scale temporal convolution of CTR-GCN (Chen et al., ICCV 2021, arXiv 2107.12213, Section 3.4)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.dropout import Dropout
from ssl_skeleton.encoders.blocks.mask import strided
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.blocks.temporal_convolution import TemporalConvolution


class MultiScaleUnit(nn.Module):
    """Four branches of C / 4 channels side by side, each behind a pointwise convolution; norm, dropout.

    Two convolutions over 5 frames, next to each other (`near`) and every second (`far`), the maximum of 3
    frames, and the pointwise convolution alone. The first three have a norm and a ReLU before them.
    """

    def __init__(self, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        quarter = channels // 4
        self.reduce = nn.Linear(channels, 3 * quarter, bias=False)
        self.reduced_norm = FrameNorm(3 * quarter)
        self.near = TemporalConvolution(quarter, quarter, 5, stride)
        self.far = TemporalConvolution(quarter, quarter, 5, stride, dilation=2)
        self.pointwise = nn.Linear(channels, quarter, bias=False)
        self.norm = FrameNorm(channels)
        self.dropout = Dropout(dropout)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T', V, C) with the mask (K, T) of what comes in."""
        reduced_ktvi = functional.relu(self.reduced_norm(self.reduce(x_ktvc), mask_kt))
        near_ktvq, far_ktvq, pooled_ktvq = reduced_ktvi.chunk(3, dim=3)
        branches = (
            self.near(near_ktvq),
            self.far(far_ktvq),
            _pooled(pooled_ktvq, self.stride),
            self.pointwise(x_ktvc[:, :: self.stride]),
        )
        y_ktvc: Tensor = self.dropout(self.norm(torch.cat(branches, dim=3), strided(mask_kt, self.stride)))
        return y_ktvc


def _pooled(x_ktvc: Tensor, stride: int) -> Tensor:
    """The maximum of every frame and its two neighbours, (K, T', V, C).

    Nothing is below zero behind a ReLU, so that zeros past a clip's length are what the end of a clip is.
    """
    pooled_kctv = functional.max_pool2d(x_ktvc.permute(0, 3, 1, 2), (3, 1), (stride, 1), (1, 0))
    return pooled_kctv.permute(0, 2, 3, 1)
