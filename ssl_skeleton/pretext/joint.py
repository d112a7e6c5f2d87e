"""Joint training: one encoder, several losses on one input view (a fusion that CRRL compares)."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.errors import UserError
from ssl_skeleton.pretext.base import (
    PoseShape,
    Pretext,
    PretextConfig,
    Teacher,
    WantedView,
    refuse_own_input,
)
from ssl_skeleton.pretext.contrastive_motion import ContrastiveMotionConfig
from ssl_skeleton.pretext.latent_reconstructor import LatentReconstructorConfig
from ssl_skeleton.pretext.sequence_reconstructor import SequenceReconstructorConfig

Part = Annotated[
    SequenceReconstructorConfig | ContrastiveMotionConfig | LatentReconstructorConfig,
    Field(discriminator="name"),
]


class JointConfig(PretextConfig):
    """The parts see `input` in place of their own, and one `key`; their losses are added with `weights`."""

    name: Literal["joint"] = "joint"
    parts: tuple[Part, ...] = Field(min_length=2)
    weights: tuple[Annotated[float, Field(ge=0)], ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.weights) != len(self.parts):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.parts)} parts")
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise ValueError("parts: a pretext stands twice")
        for part in self.parts:
            refuse_own_input(part, self.input)
        return self

    def build(self, encoder: Encoder, shape: PoseShape, teachers: Mapping[str, Teacher]) -> "Joint":
        """All parts around one `encoder`; UserError when they cannot see the same views."""
        parts = [part.model_copy(update={"input": self.input}) for part in self.parts]
        return Joint(encoder, [part.build(encoder, shape, teachers) for part in parts], self.weights)


class Joint(Pretext):
    """The encoder's features of the input view are computed once and serve every part."""

    def __init__(self, encoder: Encoder, parts: list[Pretext], weights: tuple[float, ...]) -> None:
        views: dict[str, WantedView] = {}
        for part in parts:
            for name, wanted in part.views.items():
                if views.setdefault(name, wanted) != wanted:
                    raise UserError(
                        f"joint: its parts want different views as `{name}`; give all of them the same"
                    )
        super().__init__(encoder, views)
        self.parts = nn.ModuleList(parts)
        self._weighted = tuple(zip(parts, weights, strict=True))

    def losses(self, features_ntd: Tensor, views: Mapping[str, Clips]) -> dict[str, Tensor]:
        """The weighted sum as `loss`, and every part's parts."""
        total, logged = features_ntd.new_zeros(()), dict[str, Tensor]()
        for part, weight in self._weighted:
            found = part.losses(features_ntd, views)
            total = total + weight * found.pop("loss")
            logged |= found
        return {"loss": total, **logged}

    def after_step(self) -> None:
        """Every part's own."""
        for part, _ in self._weighted:
            part.after_step()
