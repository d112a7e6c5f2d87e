"""The attention of EfficientGCN (Song et al., TPAMI 2022, arXiv 2106.15125)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.encoders.blocks.mask import frame_mean
from ssl_skeleton.encoders.blocks.norm import FrameNorm

_REDUCTION = 2  # as released


class JointAttention(nn.Module):
    """ST-JointAtt: which joints matter in which frames, for every channel; norm, shortcut, Swish.

    The weight of joint v in frame t is a product of two, one of the joint and one of the frame. They come
    from the features' means over the joints and over the frames, which share a squeeze and a hard Swish
    (arXiv 1905.02244).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // _REDUCTION
        self.squeeze = nn.Linear(channels, inner, bias=False)
        self.squeeze_norm = FrameNorm(inner)
        self.frame = nn.Linear(inner, channels)
        self.joint = nn.Linear(inner, channels)
        self.norm = FrameNorm(channels)

    def forward(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> Tensor:
        """Features (K, T, V, C), as many as came in, with the valid frames `mask_kt` (K, T); None: all."""
        frame_kt1c, joint_k1vc = self.weights(x_ktvc, mask_kt)
        attended_ktvc = self.norm(x_ktvc * (frame_kt1c * joint_k1vc), mask_kt)
        return functional.silu(attended_ktvc + x_ktvc)

    def weights(self, x_ktvc: Tensor, mask_kt: Tensor | None) -> tuple[Tensor, Tensor]:
        """The weights (K, T, 1, C) of the frames and (K, 1, V, C) of the joints, each between 0 and 1."""
        frames, joints = x_ktvc.shape[1:3]
        profile_mask_ks = None
        if mask_kt is not None:
            there_k1 = mask_kt.any(dim=1, keepdim=True)  # a body without valid frames has no joints either
            profile_mask_ks = torch.cat([mask_kt, there_k1.expand(-1, joints)], dim=1)
        profile_ksc = torch.cat([x_ktvc.mean(dim=2), frame_mean(x_ktvc, mask_kt)], dim=1)  # S = T + V
        squeezed_ks1e = functional.hardswish(
            self.squeeze_norm(self.squeeze(profile_ksc)[:, :, None], profile_mask_ks)
        )
        frame_kt1c = self.frame(squeezed_ks1e[:, :frames]).sigmoid()
        joint_kv1c = self.joint(squeezed_ks1e[:, frames:]).sigmoid()
        return frame_kt1c, joint_kv1c.transpose(1, 2)
