"""The non-local block (Wang et al., CVPR 2018, arXiv 1711.07971)."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.inserts.base import Insert, InsertConfig

Over = Literal["frames", "joints", "both"]


class NonLocalConfig(InsertConfig):
    """`over` says what a joint hears in a frame; half of the channels are embedded, as published.

    both    all joints in all frames, as published
    frames  itself in all frames
    joints  all joints in the frame
    """

    name: Literal["non_local"] = "non_local"
    over: Over = "both"

    def build(self, channels: int) -> "NonLocal":
        """A non-local block of C = `channels`."""
        return NonLocal(channels, max(1, channels // 2), self.over)


class NonLocal(Insert):
    """x + norm(W y), y being the mean of all g(x_j), weighed by exp(theta(x_i) . phi(x_j)) (eqs. 1, 3, 6).

    The norm's scale starts at zero, and so the block as the identity (Section 4.1). Without biases, most of
    which could change nothing: that of phi is lost in the softmax, those of g and W in the norm.
    """

    def __init__(self, channels: int, embedded: int, over: Over) -> None:
        super().__init__()
        self.over = over
        self.embed = nn.Linear(channels, 3 * embedded, bias=False)  # theta, phi, g
        self.project = nn.Linear(embedded, channels, bias=False)
        self.norm = FrameNorm(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """See Insert."""
        places_kbpe = self._grouped(self.embed(x_ktvc))
        theta_kbpe, phi_kbpe, g_kbpe = places_kbpe.chunk(3, dim=3)
        heard_kbpe = functional.scaled_dot_product_attention(
            theta_kbpe, phi_kbpe, g_kbpe, attn_mask=self._audible(mask_kt, x_ktvc.shape[2]), scale=1.0
        )
        out_ktvc: Tensor = x_ktvc + self.norm(self.project(self._parted(heard_kbpe, x_ktvc)), mask_kt)
        return out_ktvc

    def _grouped(self, x_ktve: Tensor) -> Tensor:
        """Features (K, B, P, E) in groups of the P places that hear each other."""
        if self.over == "both":
            return x_ktve.flatten(1, 2)[:, None]
        return x_ktve.transpose(1, 2) if self.over == "frames" else x_ktve

    def _parted(self, x_kbpe: Tensor, like_ktvc: Tensor) -> Tensor:
        """The features (K, T, V, E) of such groups."""
        if self.over == "both":
            return x_kbpe.view(*like_ktvc.shape[:3], -1)
        return x_kbpe.transpose(1, 2) if self.over == "frames" else x_kbpe

    def _audible(self, mask_kt: Tensor | None, joints: int) -> Tensor | None:
        """Which places are heard, (K, 1, 1, P): those in valid frames."""
        if mask_kt is None or self.over == "joints":
            return None
        mask_kt = mask_kt | ~mask_kt.any(dim=1, keepdim=True)  # a mean of nothing would be no number
        mask_ktv = mask_kt[:, :, None].expand(-1, -1, joints if self.over == "both" else 1)
        return mask_ktv.flatten(1)[:, None, None]
