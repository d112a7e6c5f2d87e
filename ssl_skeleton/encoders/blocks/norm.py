"""BatchNorm over valid frames alone."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.mask import cleared


class FrameNorm(nn.BatchNorm1d):
    """BatchNorm of C channels over the valid frames of all bodies and joints; other frames become zero."""

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None = None) -> Tensor:
        """Normalised features (K, T, V, C), with the valid frames `mask_kt` (K, T); None when all are."""
        if mask_kt is None:
            return self._normalised(x_ktvc)
        if not self.training:  # where what lies in other frames shifts no statistics
            return cleared(self._normalised(x_ktvc), mask_kt)
        mask_ktvc = mask_kt[:, :, None, None]
        if torch.compiler.is_compiling():
            return cleared(self._weighted(x_ktvc, mask_ktvc), mask_kt)
        valid_fvc = self._normalised(x_ktvc[mask_kt])
        return valid_fvc.new_zeros(x_ktvc.shape).masked_scatter(mask_ktvc, valid_fvc)

    def _normalised(self, x: Tensor) -> Tensor:
        """BatchNorm over all dimensions but the last."""
        rows = x.flatten(0, -2)
        if self.training and len(rows) == 1:  # which has no variance: the running statistics stand in
            return functional.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            ).view(x.shape)
        return super().forward(rows).view(x.shape)

    def _weighted(self, x_ktvc: Tensor, mask_ktvc: Tensor) -> Tensor:
        """The same in training without picking rows, whose number a compiled graph cannot know."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            raise TypeError("a FrameNorm keeps running statistics")
        x = x_ktvc.to(torch.promote_types(x_ktvc.dtype, torch.float32))
        count = mask_ktvc.sum() * x.shape[2]
        mean_c = torch.where(mask_ktvc, x, 0).sum(dim=(0, 1, 2)) / count.clamp(min=1)
        square_c = torch.where(mask_ktvc, (x - mean_c).square(), 0).sum(dim=(0, 1, 2))
        alone = count < 2  # see above
        mean_c = torch.where(alone, self.running_mean, mean_c)
        var_c = torch.where(alone, self.running_var, square_c / count.clamp(min=1))
        with torch.no_grad():
            self.num_batches_tracked.add_(~alone)
            share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            share = torch.where(alone, 0.0, share)
            self.running_mean.lerp_(mean_c, share)
            self.running_var.lerp_(square_c / (count - 1).clamp(min=1), share)
        y = (x - mean_c) * (var_c + self.eps).rsqrt()
        if self.affine:
            y = y * self.weight + self.bias
        return y.to(x_ktvc.dtype)
