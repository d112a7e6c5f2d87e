"""The temporal convolution, joint by joint."""

from torch import Tensor, nn

from ssl_skeleton.encoders.blocks.dropout import Dropout
from ssl_skeleton.encoders.blocks.mask import strided
from ssl_skeleton.encoders.blocks.norm import FrameNorm


class TemporalConvolution(nn.Module):
    """A convolution along time; T' = ceil(T / stride). Without bias, since a norm follows."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, *, groups: int = 1
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            inputs,
            outputs,
            (kernel, 1),
            (stride, 1),
            padding=(dilation * (kernel // 2), 0),
            dilation=(dilation, 1),
            groups=groups,
            bias=False,
        )

    def forward(self, x_ktvc: Tensor) -> Tensor:
        """Features (K, T', V, D); `kernel` is odd, and frames beyond both ends are zero."""
        convolved_kdtv: Tensor = self.convolution(x_ktvc.permute(0, 3, 1, 2))  # channels last in memory
        return convolved_kdtv.permute(0, 2, 3, 1).contiguous()


class DepthwiseConvolution(TemporalConvolution):
    """A convolution along time of each channel by itself."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, groups=channels)


class TemporalUnit(nn.Module):
    """Temporal convolution, norm, dropout: the temporal part of ST-GCN and of those after it."""

    def __init__(self, channels: int, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = TemporalConvolution(channels, channels, kernel, stride)
        self.norm = FrameNorm(channels)
        self.dropout = Dropout(dropout)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T', V, C) with the mask (K, T) of what comes in."""
        y_ktvc: Tensor = self.dropout(self.norm(self.convolution(x_ktvc), strided(mask_kt, self.stride)))
        return y_ktvc
