"""The spatial convolution: joints are mixed along graphs, then channels."""

import torch
from torch import Tensor, nn


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
        bodies, frames, joints, channels = x_ktvc.shape
        # All frames of a joint side by side: one product a body, not one a frame, pays for moving them.
        x_kvi = x_ktvc.transpose(1, 2).reshape(bodies, joints, frames * channels)
        graphs_kjv = graphs.movedim(0, -2).flatten(-3, -2).expand(bodies, -1, -1)  # J = V * P
        mixed_kvptc = torch.bmm(graphs_kjv, x_kvi).view(bodies, joints, -1, frames, channels)
        mixed_ktvi = mixed_kvptc.permute(0, 3, 1, 2, 4).flatten(3)
        y_ktvd: Tensor = mixed_ktvi @ self.weight_pcd.flatten(0, 1)
        return y_ktvd
