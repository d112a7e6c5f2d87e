"""Dropout that does not outweigh the convolutions beside it on a CPU."""

import torch
from torch import Tensor, nn

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size in bytes


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al., JMLR 2014).

    Torch draws its mask on a CPU one number at a time, which takes longer than a temporal convolution,
    forward and backward together. Here one draw of 64 bits is cut into integers of the features' size. Those
    below a threshold become the bits of 0, others the bits of 1 / (1 - p), and are then read as features:
    nothing is converted. With features of 16 bits the share is exact to 1 / 65536.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Features of any shape; in training a share `p` of them is zero, the rest times 1 / (1 - p)."""
        if not self.training or self.p in (0, 1) or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)  # compilers draw on their own, and know no bits
        integers = _INTEGERS[x.element_size()]
        draws = torch.empty(-(-x.numel() * x.element_size() // 8), dtype=torch.int64)
        draws.random_(torch.iinfo(torch.int64).min, None)  # all 64 bits
        range_ = torch.iinfo(integers)
        threshold = min(range_.min + round(self.p * 2**range_.bits), range_.max)
        kept_bits = torch.tensor(1 / (1 - self.p), dtype=x.dtype).view(integers)
        mask = draws.view(integers)[: x.numel()].ge_(threshold).mul_(kept_bits).view(x.dtype)
        return x * mask.view(x.shape)
