"""Dropout that does not outweigh the convolutions beside it on a CPU."""

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al., JMLR 2014).

    Torch draws its mask on a CPU one number at a time, which takes as long as a temporal convolution, forward
    and backward together; uniform numbers come a quarter as dear.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Features of any shape; in training a share `p` of them is zero, the rest times 1 / (1 - p)."""
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        return x * torch.rand(x.shape).ge_(self.p).mul_(1 / (1 - self.p)).to(x.dtype)
