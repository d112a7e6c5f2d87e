"""What goes past a block and is added to what comes out of it."""

from torch import Tensor, nn

from ssl_skeleton.encoders.blocks.norm import FrameNorm


class Shortcut(nn.Module):
    """The input itself, or a pointwise convolution and norm of it where its shape must change."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, bias: bool = False) -> None:
        super().__init__()
        self.stride = stride
        changes = inputs != outputs or stride != 1
        self.pointwise = nn.Linear(inputs, outputs, bias=bias) if changes else None
        self.norm = FrameNorm(outputs) if changes else None

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T', V, D) of the input, with the mask (K, T') of the output."""
        if self.pointwise is None or self.norm is None:
            return x_ktvc
        shortcut_ktvd: Tensor = self.norm(self.pointwise(x_ktvc[:, :: self.stride]), mask_kt)
        return shortcut_ktvd
