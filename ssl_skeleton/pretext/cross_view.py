"""What pretexts across views share: a query of one view of a clip, and a key of another."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.pooling import Pooling
from ssl_skeleton.errors import UserError
from ssl_skeleton.pretext.base import INPUT, Pretext, PretextConfig, WantedView
from ssl_skeleton.pretext.momentum import follow, momentum_twin

KEY = "key"
Momentum = Annotated[float, Field(ge=0, lt=1)] | None


class CrossViewConfig(PretextConfig, ABC):
    """The query encoder sees `input`, the key encoder sees `key`.

    symmetric  either view is the query once, and the loss is the mean of both (BYOL, arXiv 2006.07733,
               Section 3.1; MoCo v3, arXiv 2104.02057, Algorithm 1: both papers add them)
    momentum   the key encoder is a twin that follows the query encoder by so much; null has no twin: the
               encoder makes the keys too
    """

    key: ViewConfig = ViewConfig(streams=("motion",))
    symmetric: bool = False
    pooling: Pooling = "mean"
    hidden: int = Field(default=512, ge=1)
    momentum: Momentum


class CrossView(Pretext):
    """A query of one view of a clip is compared with what the key encoder makes of the other view."""

    def __init__(self, config: CrossViewConfig, encoder: Encoder) -> None:
        if len(config.key.streams) != len(config.input.streams):
            raise UserError(
                f"{config.name}: key has {len(config.key.streams)} streams, input "
                f"{len(config.input.streams)}; one encoder must fit both"
            )
        views = {INPUT: WantedView(config.input, draw=INPUT), KEY: WantedView(config.key, draw=KEY)}
        super().__init__(encoder, views)
        self.symmetric, self.momentum = config.symmetric, config.momentum
        self.key_encoder = None if config.momentum is None else momentum_twin(encoder)

    def losses(self, features_ntd: Tensor, views: Mapping[str, Clips]) -> dict[str, Tensor]:
        """What `compare` gives; where it is symmetric, the mean of both directions."""
        features = {INPUT: features_ntd}
        if self.symmetric or self.key_encoder is None:
            features[KEY] = self.encoder(views[KEY].x, views[KEY].lengths)
        there = self.compare(features, views, INPUT, KEY)
        if not self.symmetric:
            return there
        back = self.compare(features, views, KEY, INPUT)
        return {name: (part + back[name]) / 2 for name, part in there.items()}

    @abstractmethod
    def compare(
        self, features: Mapping[str, Tensor], views: Mapping[str, Clips], query: str, key: str
    ) -> dict[str, Tensor]:
        """The `loss` and its parts, given the encoder's features (N, T', D) of the views it has seen."""

    def after_step(self) -> None:
        """The key encoder follows."""
        self._follow(self.key_encoder, self.encoder)

    def _follow(self, twin: nn.Module | None, module: nn.Module | None) -> None:
        if twin is not None and module is not None and self.momentum is not None:
            follow(twin, module, self.momentum)
