"""A classifier that learns from labels as a whole: encoders and a linear layer on them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest

import torch
from torch import Tensor, nn

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.encoders.pooling import pooled_dim, represent
from ssl_skeleton.evaluation.features import Source
from ssl_skeleton.training.schedule import Optimiser


class Classifier(nn.Module):
    """A linear layer on the pooled features of encoders, one after another; the layer starts at zero."""

    def __init__(self, sources: Sequence[Source], classes: int) -> None:
        super().__init__()
        self.sources = tuple(sources)
        self.encoders = nn.ModuleList(source.encoder for source in sources)
        self.layer = nn.Linear(sum(pooled_dim(one.encoder.dim, one.pooling) for one in sources), classes)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, views: Sequence[Clips]) -> Tensor:
        """The logits (N, classes) of N clips, of which every encoder has its view."""
        pairs = zip(self.sources, views, strict=True)
        pooled = [represent(source.encoder, clips, source.pooling) for source, clips in pairs]
        logits_nc: Tensor = self.layer(torch.cat(pooled, dim=1))
        return logits_nc


def layerwise(model: Classifier, config: Optimiser) -> torch.optim.Optimizer:
    """An optimiser with a group for every depth: the linear layer, then the encoders' layers, the last first.

    The last layers of several encoders are equally deep, however many layers each has.
    """
    optimiser = config.build(model.layer.parameters())
    stacks = [reversed(source.encoder.layers()) for source in model.sources]
    for layers in zip_longest(*stacks, fillvalue=[]):
        optimiser.add_param_group({"params": list(chain(*layers))})
    return optimiser


def set_rates(optimiser: torch.optim.Optimizer, rate: float, decay: float) -> None:
    """Give the first group the learning rate `rate`, and every other one `decay` times that before it."""
    for depth, group in enumerate(optimiser.param_groups):
        group["lr"] = rate * decay**depth


def mix(clips: Clips, share_n: Tensor, partner_n: Tensor) -> Clips:
    """Each clip times its share (N,), plus the clip in the place `partner` (N,) times what is left of it.

    A mixed clip is as long as the longer one of both. In frames and bodies that only one of them has, the
    other one counts as zero, which absent bodies are.
    """
    return replace(
        clips,
        x=mix_rows(clips.x, share_n, partner_n),
        lengths=torch.maximum(clips.lengths, clips.lengths[partner_n]),
        mask=clips.seen | clips.seen[partner_n],
    )


def mix_rows(rows: Tensor, share_n: Tensor, partner_n: Tensor) -> Tensor:
    """Each row (N, ...) times its share, plus the row of its partner times what is left of it."""
    return torch.lerp(rows[partner_n], rows, share_n.view(-1, *[1] * (rows.dim() - 1)))
