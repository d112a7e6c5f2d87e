"""The temporal convolution, joint by joint."""

from torch import Tensor, nn


class TemporalConvolution(nn.Module):
    """A convolution along time; T' = ceil(T / stride). Without bias, since a norm follows."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            inputs,
            outputs,
            (kernel, 1),
            (stride, 1),
            padding=(dilation * (kernel // 2), 0),
            dilation=(dilation, 1),
            bias=False,
        )

    def forward(self, x_ktvc: Tensor) -> Tensor:
        """Features (K, T', V, D); `kernel` is odd, and frames beyond both ends are zero."""
        convolved_kdtv: Tensor = self.convolution(x_ktvc.permute(0, 3, 1, 2))  # channels last in memory
        return convolved_kdtv.permute(0, 2, 3, 1).contiguous()
