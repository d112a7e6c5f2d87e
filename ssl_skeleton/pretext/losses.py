"""The losses of CRRL, as pure functions."""

import torch
from torch import Tensor
from torch.nn import functional

from ssl_skeleton.data.clips import frame_mask


def reconstruction(estimate_ntp: Tensor, target_ntp: Tensor, lengths: Tensor) -> Tensor:
    """Squared error of poses (N, T, P), summed over a pose, averaged over all valid frames (CRRL, SER)."""
    valid_nt = frame_mask(lengths, target_ntp.shape[1])
    error_nt = (estimate_ntp - target_ntp).square().sum(dim=2)
    return torch.where(valid_nt, error_nt, 0.0).sum() / lengths.sum()


def info_nce(
    query_nd: Tensor, key_nd: Tensor, negatives_kd: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """InfoNCE of unit vectors: each query (N, D) against its own key (N, D) and K negatives (K, D).

    Returns the mean loss and the share of queries that are nearest to their own key
    (van den Oord et al., arXiv 1807.03748; with a queue: He et al., MoCo, arXiv 1911.05722).
    """
    positive_n1 = (query_nd * key_nd).sum(dim=1, keepdim=True)
    logits = torch.cat([positive_n1, query_nd @ negatives_kd.T], dim=1) / temperature
    own = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return functional.cross_entropy(logits, own), (logits.argmax(dim=1) == 0).float().mean()


def distillation(student_nd: Tensor, teacher_nd: Tensor) -> Tensor:
    """Squared Euclidean distance of two representations (N, D), averaged over clips (CRRL, INF)."""
    return (student_nd - teacher_nd).square().sum(dim=1).mean()
