"""The losses of CRRL, as pure functions: means over clips, in float32 or better whatever the features are in.

So the loss of a batch is the mean of the losses of its clips, however they are shared among ranks.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ssl_skeleton.data.clips import frame_mask


def reconstruction(estimate_ntp: Tensor, target_ntp: Tensor, lengths: Tensor) -> Tensor:
    """Squared error of poses (N, T, P), summed over a pose, averaged over valid frames, then over clips.

    CRRL's, of its SER; with clips of different lengths each counts alike.
    """
    valid_nt = frame_mask(lengths, target_ntp.shape[1])
    error_nt = (precise(estimate_ntp) - target_ntp).square().sum(dim=2)
    return (torch.where(valid_nt, error_nt, 0.0).sum(dim=1) / lengths).mean()


def info_nce(
    query_nd: Tensor, key_nd: Tensor, negatives_kd: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """InfoNCE of unit vectors: each query (N, D) against its own key (N, D) and K negatives (K, D).

    Returns the mean loss and the share of queries that are nearest to their own key
    (van den Oord et al., arXiv 1807.03748; with a queue: He et al., MoCo, arXiv 1911.05722).
    """
    query_nd = precise(query_nd)
    positive_n1 = (query_nd * key_nd).sum(dim=1, keepdim=True)
    with torch.autocast(query_nd.device.type, enabled=False):
        negative_nk = query_nd @ negatives_kd.T
    logits = torch.cat([positive_n1, negative_nk], dim=1) / temperature
    own = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return functional.cross_entropy(logits, own), (logits.argmax(dim=1) == 0).float().mean()


def distillation(student_nd: Tensor, teacher_nd: Tensor) -> Tensor:
    """Squared Euclidean distance of two representations (N, D), averaged over clips (CRRL, INF)."""
    return (precise(student_nd) - teacher_nd).square().sum(dim=1).mean()


def precise(x: Tensor) -> Tensor:
    """What autocast gave in half precision, in float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
