"""BatchNorm over valid frames alone, and over those of all ranks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from ssl_skeleton import ranks
from ssl_skeleton.encoders.blocks.mask import cleared


class SyncedBatchNorm(nn.BatchNorm1d):
    """BatchNorm (Ioffe and Szegedy, arXiv 1502.03167) of C channels; in training over the rows of all ranks.

    Ranks together give what one rank with all their rows would give, and keep the same running statistics.
    How many rows there are is each rank's own, and may be none. The momentum encoder of a contrastive pretext
    is normalised so as well: statistics of a few clips could tell which key belongs to which query, against
    which MoCo shuffles clips over ranks (arXiv 1911.05722, Section 3.3), and those of all clips cannot.
    """

    def forward(self, rows_rc: Tensor) -> Tensor:
        """Normalised rows (R, C). One row alone has no variance: the running statistics stand in."""
        if self.training and ranks.world_size() > 1:
            return _between_graphs(self._synced, rows_rc)
        if self.training and len(rows_rc) == 1:
            return functional.batch_norm(
                rows_rc, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(rows_rc)

    def _synced(self, rows_rc: Tensor) -> Tensor:
        mean_c, var_c, count = self._settled(*_statistics(rows_rc.to(_precise(rows_rc))))
        weight_c = torch.ones_like(mean_c) if self.weight is None else self.weight
        bias_c = torch.zeros_like(mean_c) if self.bias is None else self.bias
        normal_rc: Tensor = _SyncedNorm.apply(  # type: ignore[no-untyped-call]
            rows_rc, weight_c, bias_c, mean_c, var_c, count, self.eps
        )
        return normal_rc

    def _settled(self, mean_c: Tensor, square_c: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mean and variance to normalise with, and the rows that they are of; running ones move on.

        Given are the mean and the sum of squared deviations from it of `count` rows.
        """
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            raise TypeError("the norm keeps running statistics")
        alone = count < 2  # see above
        mean_c = torch.where(alone, self.running_mean, mean_c)
        var_c = torch.where(alone, self.running_var, square_c / count.clamp(min=1))
        with torch.no_grad():
            self.num_batches_tracked.add_(~alone)
            steps = self.num_batches_tracked.to(mean_c.dtype)
            share = 1 / steps if self.momentum is None else torch.full_like(steps, self.momentum)
            share = torch.where(alone, 0, share)
            self.running_mean.lerp_(mean_c, share)
            self.running_var.lerp_(square_c / (count - 1).clamp(min=1), share)
        return mean_c, var_c, count


class FrameNorm(SyncedBatchNorm):
    """BatchNorm of C channels over the valid frames of all bodies and joints; other frames become zero."""

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None = None) -> Tensor:
        """Normalised features (K, T, V, C), with the valid frames `mask_kt` (K, T); None when all are."""
        if mask_kt is None:
            return self._normalised(x_ktvc)
        if not self.training:  # where what lies in other frames shifts no statistics
            return cleared(self._normalised(x_ktvc), mask_kt)
        if torch.compiler.is_compiling() and ranks.world_size() == 1:
            return cleared(self._weighted(x_ktvc, mask_kt[:, :, None, None]), mask_kt)
        return _between_graphs(self._picked, x_ktvc, mask_kt)

    def _normalised(self, x: Tensor) -> Tensor:
        """BatchNorm over all dimensions but the last."""
        return super().forward(x.flatten(0, -2)).view(x.shape)

    def _picked(self, x_ktvc: Tensor, mask_kt: Tensor) -> Tensor:
        """The rows of valid frames normalised, zero in other frames."""
        valid_fvc = self._normalised(x_ktvc[mask_kt])
        return valid_fvc.new_zeros(x_ktvc.shape).masked_scatter(mask_kt[:, :, None, None], valid_fvc)

    def _weighted(self, x_ktvc: Tensor, mask_ktvc: Tensor) -> Tensor:
        """The same in training without picking rows, whose number a compiled graph cannot know."""
        x = x_ktvc.to(_precise(x_ktvc))
        count = mask_ktvc.sum() * x.shape[2]
        mean_c = torch.where(mask_ktvc, x, 0).sum(dim=(0, 1, 2)) / count.clamp(min=1)
        square_c = torch.where(mask_ktvc, (x - mean_c).square(), 0).sum(dim=(0, 1, 2))
        mean_c, var_c, _ = self._settled(mean_c, square_c, count)
        y = (x - mean_c) * (var_c + self.eps).rsqrt()
        if self.affine:
            y = y * self.weight + self.bias
        return y.to(x_ktvc.dtype)


class _SyncedNorm(Function):
    """Rows (R, C) normalised with the mean and variance of all ranks' rows, `count` in number."""

    @staticmethod
    def forward(  # noqa: PLR0917 (autograd wants every tensor to be an argument by itself)
        ctx: Any,
        rows_rc: Tensor,
        weight_c: Tensor,
        bias_c: Tensor,
        mean_c: Tensor,
        var_c: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(rows_rc, weight_c, mean_c, var_c, count)
        ctx.eps = eps
        return functional.batch_norm(rows_rc, mean_c, var_c, weight_c, bias_c, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Each rank's own part of the gradients of weight and bias, as of any parameter."""
        rows_rc, weight_c, mean_c, var_c, count = ctx.saved_tensors
        slopes_c = [torch.zeros_like(mean_c)] * 2
        if len(rows_rc):  # torch's own, for a mean and variance that stay as they are
            given = (gradients[0], rows_rc, weight_c, mean_c, var_c, None, None, False, ctx.eps)
            _, *slopes_c = torch.ops.aten.native_batch_norm_backward(*given, [False, True, True])
        if not ctx.needs_input_grad[0]:
            return None, *slopes_c, None, None, None, None
        # Every row moves those of all, unless it is alone and others stand in for them.
        along_c, level_c = ranks.total(torch.stack(slopes_c)) / count * (count > 1)
        inverse_c = (var_c + ctx.eps).rsqrt()
        slope_rc = (rows_rc - mean_c).mul_(-inverse_c * along_c).add_(gradients[0]).sub_(level_c)
        return slope_rc.mul_(weight_c * inverse_c).to(rows_rc.dtype), *slopes_c, None, None, None, None


def _between_graphs(compute: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Compute what a compiled graph cannot hold, since the ranks speak with each other there."""
    if torch.compiler.is_compiling():
        compute = torch.compiler.disable(compute)  # type: ignore[no-untyped-call]
    return compute(*inputs)


def _precise(x: Tensor) -> torch.dtype:
    """What statistics are computed in: float32, or more where features have it."""
    return torch.promote_types(x.dtype, torch.float32)


@torch.no_grad()
def _statistics(rows_rc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), sum of squared deviations from it (C,), and number of all ranks' rows.

    Each rank's own are put together as Chan et al. do (The American Statistician 37, 1983, eq. 2.1), which
    subtracts no large numbers from each other as a difference of squares would.
    """
    rows, channels = rows_rc.shape
    if not rows:
        mean_c = var_c = rows_rc.new_zeros(channels)
    elif rows_rc.device.type == "cpu":  # where var_mean takes 20 times as long
        mean_c, var_c = torch.batch_norm_update_stats(rows_rc, None, None, 0)
    else:
        var_c, mean_c = torch.var_mean(rows_rc, dim=0, correction=0)
    own_s = torch.cat([rows_rc.new_full((1,), rows), mean_c, var_c * rows])
    count_r1, mean_rc, square_rc = ranks.stacked(own_s).double().split([1, channels, channels], dim=1)  # type: ignore[no-untyped-call]
    count = count_r1.sum()
    mean_c = (count_r1 * mean_rc).sum(dim=0) / count.clamp(min=1)
    square_c = (square_rc + count_r1 * (mean_rc - mean_c).square()).sum(dim=0)
    return mean_c.to(rows_rc.dtype), square_c.to(rows_rc.dtype), count
