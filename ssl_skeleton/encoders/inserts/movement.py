"""What features change by from a frame to the next, which two papers use."""

from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.mask import cleared


class Movement(nn.Module):
    """K x(t + 1) - x(t), and zero at the last valid frame, which moves nowhere.

    As in ACTION-Net (arXiv 2103.07372, Section 3.3) and STM (arXiv 1908.02486, Section 3.2), but for K: over
    an image it is a convolution of 3 x 3 pixels, of each channel by itself. A joint alone would leave that
    one number a channel: here K is a product that mixes the joint's channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.next = nn.Linear(channels, channels, bias=False)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """The change (K, T, V, C) of features (K, T, V, C)."""
        changed_ktvc = self.next(x_ktvc[:, 1:]) - x_ktvc[:, :-1]
        changed_ktvc = cleared(changed_ktvc, None if mask_kt is None else mask_kt[:, 1:])
        return functional.pad(changed_ktvc, (0, 0, 0, 0, 0, 1))
