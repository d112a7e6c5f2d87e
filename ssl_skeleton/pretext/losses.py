"""The losses of pretexts, as pure functions: means over clips, in float32 or better whatever features are in.

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
    query_nd: Tensor,
    key_nd: Tensor,
    negatives_kd: Tensor,
    temperature: float,
    *,
    counted_nk: Tensor | None = None,
    positives: int = 0,
) -> tuple[Tensor, Tensor]:
    """InfoNCE of unit vectors: each query (N, D) against its own key (N, D) and K negatives (K, D).

    Returns the mean loss and the share of queries that are nearest to their own key
    (van den Oord et al., arXiv 1807.03748; with a queue: He et al., MoCo, arXiv 1911.05722).
    `counted_nk`, bool (N, K), says which negatives are there for which query; by default all of them.

    With `positives`, the P negatives nearest to a query (of P or more) count as positives too. So neighbours
    are mined in CrosSCLR (arXiv 2104.14466) and AimCLR (arXiv 2112.03590). The loss is the mean over the
    P + 1 positives of the InfoNCE of each among all keys (L_out of SupCon, arXiv 2004.11362, Equation 2).
    """
    query_nd = precise(query_nd)
    own_n1 = (query_nd * key_nd).sum(dim=1, keepdim=True)
    with torch.autocast(query_nd.device.type, enabled=False):
        negative_nk = query_nd @ negatives_kd.T
    if counted_nk is not None:
        negative_nk = negative_nk.masked_fill(~counted_nk, -torch.inf)
    logits = torch.cat([own_n1, negative_nk], dim=1) / temperature
    accuracy = (logits.argmax(dim=1) == 0).float().mean()
    if positives:
        positive = torch.cat([logits[:, :1], logits[:, 1:].topk(positives).values], dim=1)
        return (logits.logsumexp(dim=1) - positive.mean(dim=1)).mean(), accuracy
    first = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    return functional.cross_entropy(logits, first), accuracy


def distillation(student_nd: Tensor, teacher_nd: Tensor) -> Tensor:
    """Squared Euclidean distance of two representations (N, D), averaged over clips (CRRL, INF)."""
    return (precise(student_nd) - teacher_nd).square().sum(dim=1).mean()


def precise(x: Tensor) -> Tensor:
    """What autocast gave in half precision, in float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
