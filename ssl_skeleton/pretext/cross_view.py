"""What pretexts across views share: the momentum encoder sees another view of the clip than the encoder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.pooling import Pooling
from ssl_skeleton.errors import UserError
from ssl_skeleton.pretext.base import INPUT, Pretext, PretextConfig, WantedView
from ssl_skeleton.pretext.momentum import follow, momentum_twin

KEY = "key"


class CrossViewConfig(PretextConfig, ABC):
    """The query encoder sees `input`, the momentum encoder sees `key`.

    `symmetric` shows both views to both encoders, so that either view is the query once, and takes the mean
    of both losses (BYOL, arXiv 2006.07733, Section 3.1; MoCo v3, arXiv 2104.02057, Algorithm 1: both papers
    add them).
    """

    key: ViewConfig = ViewConfig(streams=("motion",))
    symmetric: bool = False
    pooling: Pooling = "mean"
    hidden: int = Field(default=512, ge=1)
    momentum: float = Field(ge=0, lt=1)


class CrossView(Pretext):
    """A query of one view of a clip is compared with what the momentum encoder makes of the other view."""

    def __init__(self, config: CrossViewConfig, encoder: Encoder) -> None:
        if len(config.key.streams) != len(config.input.streams):
            raise UserError(
                f"{config.name}: key has {len(config.key.streams)} streams, input "
                f"{len(config.input.streams)}; one encoder must fit both"
            )
        views = {INPUT: WantedView(config.input, draw=INPUT), KEY: WantedView(config.key, draw=KEY)}
        super().__init__(encoder, views)
        self.symmetric, self.momentum = config.symmetric, config.momentum
        self.key_encoder = momentum_twin(encoder)

    def losses(self, features_ntd: Tensor, views: Mapping[str, Clips]) -> dict[str, Tensor]:
        """What `compare` gives; where it is symmetric, the mean of both directions."""
        there = self.compare(features_ntd, views, INPUT, KEY)
        if not self.symmetric:
            return there
        clips = views[KEY]
        back = self.compare(self.encoder(clips.x, clips.lengths), views, KEY, INPUT)
        return {name: (part + back[name]) / 2 for name, part in there.items()}

    @abstractmethod
    def compare(
        self, features_ntd: Tensor, views: Mapping[str, Clips], query: str, key: str
    ) -> dict[str, Tensor]:
        """The `loss` and its parts, given the encoder's features (N, T', D) of the view `query`."""

    def after_step(self) -> None:
        """The momentum encoder follows."""
        follow(self.key_encoder, self.encoder, self.momentum)
