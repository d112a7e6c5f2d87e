"""BatchNorm over valid frames alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FrameNorm(nn.BatchNorm1d):
    """BatchNorm of C channels over the valid frames of all bodies and joints; other frames become zero."""

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None = None) -> Tensor:
        """Normalised features (K, T, V, C), with the valid frames `mask_kt` (K, T); None when all are."""
        if mask_kt is None:
            return self._normalised(x_ktvc)
        if not self.training:  # where what lies in other frames shifts no statistics
            return torch.where(mask_kt[:, :, None, None], self._normalised(x_ktvc), 0)
        valid_fvc = self._normalised(x_ktvc[mask_kt])
        return valid_fvc.new_zeros(x_ktvc.shape).masked_scatter(mask_kt[:, :, None, None], valid_fvc)

    def _normalised(self, x: Tensor) -> Tensor:
        """BatchNorm over all dimensions but the last."""
        rows = x.flatten(0, -2)
        if self.training and len(rows) == 1:  # which has no variance: the running statistics stand in
            return functional.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            ).view(x.shape)
        return super().forward(rows).view(x.shape)
