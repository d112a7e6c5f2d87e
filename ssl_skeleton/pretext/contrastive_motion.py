"""CML, the contrastive motion learner of CRRL (arXiv 2111.11051, Section III-C): MoCo across streams."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton import ranks
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.pooling import pool_features, pooled_dim
from ssl_skeleton.pretext.base import PoseShape, Teacher
from ssl_skeleton.pretext.cross_view import KEY, CrossView, CrossViewConfig, Momentum
from ssl_skeleton.pretext.decoder import DecoderConfig, PooledDecoder
from ssl_skeleton.pretext.heads import mlp
from ssl_skeleton.pretext.losses import info_nce, precise
from ssl_skeleton.pretext.momentum import momentum_twin
from ssl_skeleton.pretext.queue import KeyQueue


class ContrastiveMotionConfig(CrossViewConfig):
    """The query encoder sees `input`, the key encoder sees `key`.

    key_head   `follow` lets the key's head follow by momentum like its encoder (MoCo); `frozen` gives it a
               random start of its own and leaves it there, as the authors' release does
    decoder    contrasts behind a decoder, which stands before the head, and follows like the encoder; null
               contrasts in the encoder's own space
    momentum   of the key's encoder, head and decoder; null has none of these, and gradients flow into the
               keys too (SimCLR, arXiv 2002.05709)
    queue      how many keys of earlier batches are negatives
    in_batch   the keys of the other clips of the global batch are negatives too; `queue` may be 0 then
               (MoCo v3, arXiv 2104.02057). Without momentum their queries are negatives as well, as in SimCLR
    positives  so many of a query's negatives, those nearest to it, count as positives (`info_nce`)
    positives_after  but only after so many steps, since an untrained encoder finds the wrong ones
    """

    name: Literal["contrastive_motion"] = "contrastive_motion"
    key_head: Literal["follow", "frozen"] = "follow"
    decoder: DecoderConfig | None = None
    outputs: int = Field(default=512, ge=1)
    temperature: float = Field(default=0.1, gt=0)
    momentum: Momentum = 0.999
    queue: int = Field(default=64, ge=0)
    in_batch: bool = False
    positives: int = Field(default=0, ge=0)
    positives_after: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.queue == 0 and not self.in_batch:
            raise ValueError("queue: 0 leaves no negatives; set in_batch to true, or give it a size")
        if self.momentum is None and self.key_head == "frozen":
            raise ValueError("key_head: frozen, but with momentum: null the keys have no head of their own")
        if self.positives > self.queue:
            raise ValueError(
                f"positives: {self.positives}, but the queue has {self.queue} keys to find them in"
            )
        return self

    def build(
        self, encoder: Encoder, shape: PoseShape, teachers: Mapping[str, Teacher]
    ) -> "ContrastiveMotion":
        """CML around `encoder`; UserError when its twin cannot see the keys."""
        return ContrastiveMotion(self, encoder, shape.size(self.input))


class ContrastiveMotion(CrossView):
    """A clip's query must be nearer to its own key than to the keys of other clips."""

    steps: Tensor

    def __init__(self, config: ContrastiveMotionConfig, encoder: Encoder, pose: int) -> None:
        super().__init__(config, encoder)
        self.config = config
        dim = pooled_dim(encoder.dim, config.pooling)
        self.decoder: PooledDecoder | None = None
        self.key_decoder: PooledDecoder | None = None
        self.key_head: nn.Module | None = None
        if config.decoder is not None:
            self.decoder = PooledDecoder(config.decoder, dim, pose, config.pooling)
            dim = self.decoder.dim
        sizes = (dim, config.hidden, config.outputs)
        self.head = mlp(*sizes)
        if config.momentum is not None:
            self.key_decoder = None if self.decoder is None else momentum_twin(self.decoder)
            self.key_head = momentum_twin(self.head if config.key_head == "follow" else mlp(*sizes))
        self.queue = KeyQueue(config.queue, config.outputs)
        if config.symmetric:  # the keys of either view are negatives of the other's queries
            self.input_queue = KeyQueue(config.queue, config.outputs)
        if config.positives:
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def compare(
        self, features: Mapping[str, Tensor], views: Mapping[str, Clips], query: str, key: str
    ) -> dict[str, Tensor]:
        """InfoNCE as `loss`, and how often the own key is the nearest."""
        query_nd = self._vectors(features[query], views[query], self.decoder, self.head)
        key_nd = self._keys(features, views, key)
        queue = self.queue if key == KEY else self.input_queue
        negatives_kd, counted_nk = queue.keys_kd, None
        if self.config.in_batch:
            others = [key_nd, query_nd] if self.key_encoder is None else [key_nd]
            negatives_kd, counted_nk = _with_batch(negatives_kd, others, views[key].index)
        loss, accuracy = info_nce(
            query_nd,
            key_nd,
            negatives_kd,
            self.config.temperature,
            counted_nk=counted_nk,
            positives=self._positives(),
        )
        if self.training:  # a look in between adds none
            queue.note(key_nd)
        return {"loss": loss, "contrast": loss, "contrast_accuracy": accuracy}

    def after_step(self) -> None:
        """Queue the new keys; the key encoder and its decoder follow, and its head if it may."""
        self.queue.push_noted()
        if self.symmetric:
            self.input_queue.push_noted()
        if self.config.positives:
            self.steps += 1
        super().after_step()
        self._follow(self.key_decoder, self.decoder)
        if self.config.key_head == "follow":
            self._follow(self.key_head, self.head)

    def _positives(self) -> int:
        mines = self.config.positives and int(self.steps) >= self.config.positives_after
        return self.config.positives if mines else 0

    def _keys(self, features: Mapping[str, Tensor], views: Mapping[str, Clips], key: str) -> Tensor:
        clips = views[key]
        if self.key_encoder is None or self.key_head is None:
            return self._vectors(features[key], clips, self.decoder, self.head)
        with torch.no_grad():
            features_ntd = self.key_encoder(clips.x, clips.lengths)
            return self._vectors(features_ntd, clips, self.key_decoder, self.key_head)

    def _vectors(
        self, features_ntd: Tensor, clips: Clips, decoder: PooledDecoder | None, head: nn.Module
    ) -> Tensor:
        """The unit vectors (N, `outputs`) that are contrasted."""
        pooled_nd = pool_features(features_ntd, clips, self.config.pooling)
        if decoder is not None:
            pooled_nd = decoder(pooled_nd, clips)
        return functional.normalize(precise(head(pooled_nd)), dim=1)


def _with_batch(queued_kd: Tensor, others: Sequence[Tensor], index_n: Tensor) -> tuple[Tensor, Tensor]:
    """The queued keys and the vectors of the B clips of the global batch; which of them are of other clips.

    They are (K + B * len(others), D), and bool (N, K + B * len(others)).
    """
    others_nb = index_n[:, None] != ranks.gather_rows(index_n)
    queued_nk = others_nb.new_ones(len(index_n), len(queued_kd))
    gathered = [ranks.gather_rows(vectors_nd, flowing=True) for vectors_nd in others]
    return torch.cat([queued_kd, *gathered]), torch.cat([queued_nk, *[others_nb] * len(others)], dim=1)
