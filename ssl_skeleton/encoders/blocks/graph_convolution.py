"""The spatial convolution: joints are mixed along graphs, then channels."""

import torch
from torch import Tensor, nn

# Up to so many numbers V * D a frame, one matrix for all joints and channels is quicker than mixing the
# joints first, though it multiplies more: nothing is moved in between. Measured with 25 joints on CPUs.
_FEW = 1024


class GraphConvolution(nn.Module):
    """y = sum over p of A_p x W_p, for P graphs (ST-GCN, arXiv 1801.07455, eq. 10).

    Without bias, since a norm follows.
    """

    def __init__(self, inputs: int, outputs: int, graphs: int) -> None:
        super().__init__()
        self.weight_pcd = nn.Parameter(torch.randn(graphs, inputs, outputs) / (graphs * inputs) ** 0.5)

    def forward(self, x_ktvc: Tensor, graphs: Tensor) -> Tensor:
        """Features (K, T, V, D); row w of a graph weighs what joint w hears.

        The graphs are (P, V, V), or (P, K, V, V) when every body has its own.
        """
        if graphs.dim() == 3 and graphs.shape[-1] * self.weight_pcd.shape[-1] <= _FEW:
            return self._at_once(x_ktvc, graphs)
        bodies, frames, joints, channels = x_ktvc.shape
        # All frames of a joint side by side: one product a body, not one a frame, pays for moving them.
        x_kvi = x_ktvc.transpose(1, 2).reshape(bodies, joints, frames * channels)
        graphs_kjv = graphs.movedim(0, -2).flatten(-3, -2).expand(bodies, -1, -1)  # J = V * P
        mixed_kvptc = torch.bmm(graphs_kjv, x_kvi).view(bodies, joints, -1, frames, channels)
        mixed_ktvi = mixed_kvptc.permute(0, 3, 1, 2, 4).flatten(3)
        y_ktvd: Tensor = mixed_ktvi @ self.weight_pcd.flatten(0, 1)
        return y_ktvd

    def _at_once(self, x_ktvc: Tensor, graphs_pwv: Tensor) -> Tensor:
        """The same by one matrix, from V * C numbers of a frame to V * D."""
        joints, channels = x_ktvc.shape[2:]
        matrix_fn = graphs_pwv.flatten(1).mT @ self.weight_pcd.flatten(1)
        matrix_vcwd = matrix_fn.view(joints, joints, channels, -1).permute(1, 2, 0, 3)
        matrix_ij = matrix_vcwd.flatten(2).flatten(0, 1)
        y_ktvd: Tensor = (x_ktvc.flatten(2) @ matrix_ij).view(*x_ktvc.shape[:3], -1)
        return y_ktvd
