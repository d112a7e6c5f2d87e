"""Reconstruction in latent space: one view's features are predicted from another's (BYOL, arXiv 2006.07733).

The corner of reconstruction without a decoder, where methods are told apart by how they learn and in which
space (Ben Tanfous et al., How and What to Learn, WACV 2022).
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.pooling import pool_features, pooled_dim, represent
from ssl_skeleton.pretext.base import PoseShape, Teacher
from ssl_skeleton.pretext.cross_view import CrossView, CrossViewConfig, Momentum
from ssl_skeleton.pretext.heads import mlp
from ssl_skeleton.pretext.losses import distillation, precise


class LatentReconstructorConfig(CrossViewConfig):
    """The target are the key encoder's pooled features themselves, without BYOL's projection.

    BYOL's `momentum` grows from 0.996 to 1; here it stays as it is. Null is SimSiam (arXiv 2011.10566): the
    encoder's own features are the target, and no gradient flows into them.
    """

    name: Literal["latent_reconstructor"] = "latent_reconstructor"
    momentum: Momentum = 0.996

    def build(
        self, encoder: Encoder, shape: PoseShape, teachers: Mapping[str, Teacher]
    ) -> "LatentReconstructor":
        """The predictor around `encoder`; UserError when its twin cannot see the keys."""
        return LatentReconstructor(self, encoder)


class LatentReconstructor(CrossView):
    """loss = |MLP(query) - key|^2 of both at length 1, which is 2 - 2 cos (BYOL, Equation 2).

    There are no negatives: that all clips become one point is kept off by the predictor, which the key's
    side lacks, and by the key encoder's slowness.
    """

    def __init__(self, config: LatentReconstructorConfig, encoder: Encoder) -> None:
        super().__init__(config, encoder)
        self.pooling = config.pooling
        dim = pooled_dim(encoder.dim, config.pooling)
        self.head = mlp(dim, config.hidden, dim)

    def compare(
        self, features: Mapping[str, Tensor], views: Mapping[str, Clips], query: str, key: str
    ) -> dict[str, Tensor]:
        """The squared distance of prediction and target, averaged over clips, from 0 to 4."""
        target_nd = _unit(self._target(features, views[key], key))
        guess_nd = self.head(pool_features(features[query], views[query], self.pooling))
        loss = distillation(_unit(guess_nd), target_nd)
        return {"loss": loss, "reconstruct_latent": loss}

    @torch.no_grad()
    def _target(self, features: Mapping[str, Tensor], clips: Clips, key: str) -> Tensor:
        if self.key_encoder is None:
            return pool_features(features[key], clips, self.pooling)
        return represent(self.key_encoder, clips, self.pooling)


def _unit(x_nd: Tensor) -> Tensor:
    return functional.normalize(precise(x_nd), dim=1)
