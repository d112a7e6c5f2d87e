"""CML, the contrastive motion learner of CRRL (arXiv 2111.11051, Section III-C): MoCo across streams."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ssl_skeleton import ranks
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.pooling import Pooling, pool_features, pooled_dim, represent
from ssl_skeleton.errors import UserError
from ssl_skeleton.pretext.base import INPUT, PoseShape, Pretext, PretextConfig, Teacher, WantedView
from ssl_skeleton.pretext.heads import mlp
from ssl_skeleton.pretext.losses import info_nce, precise
from ssl_skeleton.pretext.momentum import follow, momentum_twin
from ssl_skeleton.pretext.queue import KeyQueue

KEY = "key"


class ContrastiveMotionConfig(PretextConfig):
    """The query encoder sees `input`, the momentum encoder sees `key`.

    `key_head: follow` lets the key's head follow by momentum like its encoder (MoCo); `frozen` gives it a
    random start of its own and leaves it there, as the authors' release does.
    """

    name: Literal["contrastive_motion"] = "contrastive_motion"
    key: ViewConfig = ViewConfig(streams=("motion",))
    key_head: Literal["follow", "frozen"] = "follow"
    pooling: Pooling = "mean"
    hidden: int = Field(default=512, ge=1)
    outputs: int = Field(default=512, ge=1)
    temperature: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.999, ge=0, lt=1)
    queue: int = Field(default=64, ge=1)

    def build(
        self, encoder: Encoder, shape: PoseShape, teachers: Mapping[str, Teacher]
    ) -> "ContrastiveMotion":
        """CML around `encoder`; UserError when its twin cannot see the keys."""
        if len(self.key.streams) != len(self.input.streams):
            raise UserError(
                f"{self.name}: key has {len(self.key.streams)} streams, input {len(self.input.streams)}; "
                "one encoder must fit both"
            )
        return ContrastiveMotion(self, encoder)


class ContrastiveMotion(Pretext):
    """A clip's query must be nearer to its own key than to the keys of earlier batches."""

    def __init__(self, config: ContrastiveMotionConfig, encoder: Encoder) -> None:
        views = {INPUT: WantedView(config.input, draw=INPUT), KEY: WantedView(config.key, draw=KEY)}
        super().__init__(encoder, views)
        self.config = config
        sizes = (pooled_dim(encoder.dim, config.pooling), config.hidden, config.outputs)
        self.head = mlp(*sizes)
        self.key_encoder = momentum_twin(encoder)
        self.key_head = momentum_twin(self.head if config.key_head == "follow" else mlp(*sizes))
        self.queue = KeyQueue(config.queue, config.outputs)
        self._new_keys: list[tuple[Tensor, Tensor]] = []

    def losses(self, features_ntd: Tensor, views: Mapping[str, Clips]) -> dict[str, Tensor]:
        """InfoNCE as `loss`, and how often the own key is the nearest."""
        pooled_nd = pool_features(features_ntd, views[INPUT], self.config.pooling)
        query_nd = functional.normalize(precise(self.head(pooled_nd)), dim=1)
        key_nd = self._keys(views[KEY])
        loss, accuracy = info_nce(query_nd, key_nd, self.queue.keys_kd, self.config.temperature)
        if self.training:  # a look in between adds none
            self._new_keys.append((torch.tensor(ranks.places(len(key_nd)), device=key_nd.device), key_nd))
        return {"loss": loss, "contrast": loss, "contrast_accuracy": accuracy}

    def after_step(self) -> None:
        """Queue the keys of the global batch; the key encoder, and its head if it may, follow.

        They come from all training passes since the last step, on all ranks, and are queued in the order of
        the batch: so the queue is the same on every rank, and for any number of ranks.
        """
        if self._new_keys:
            places, keys = zip(*self._new_keys, strict=True)
            order_n = ranks.gather_rows(torch.cat(places)).argsort()
            self.queue.push(ranks.gather_rows(torch.cat(keys))[order_n])
            self._new_keys.clear()
        follow(self.key_encoder, self.encoder, self.config.momentum)
        if self.config.key_head == "follow":
            follow(self.key_head, self.head, self.config.momentum)

    @torch.no_grad()
    def _keys(self, clips: Clips) -> Tensor:
        pooled_nd = represent(self.key_encoder, clips, self.config.pooling)
        return functional.normalize(precise(self.key_head(pooled_nd)), dim=1)
