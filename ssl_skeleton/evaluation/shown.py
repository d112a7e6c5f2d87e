"""How test clips are shown when less, or worse, is seen of them."""

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ssl_skeleton.config import Config
from ssl_skeleton.data.altered import (
    at_another_tempo,
    resized,
    turned_about_vertical,
    with_noise,
    without_frames,
    without_joints,
)
from ssl_skeleton.data.store import Store
from ssl_skeleton.training.seeds import derive_seed

ProbeName = Literal["linear", "knn"]
Seen = Annotated[float, Field(gt=0, le=1)]
Lost = Annotated[float, Field(ge=0, lt=1)]
Deviation = Annotated[float, Field(ge=0)]
Degrees = Annotated[float, Field(ge=0, le=180)]


_CURVES = ("missing", "noise", "rotation", "dropped", "size", "tempo")


class EarlyConfig(Config):
    """Recognition from the beginning of clips.

    shares  which shares of a test clip's frames are seen, from its first frame on; ascending
    probe   what learns: `linear` or `knn`, as `evaluation.linear` and `evaluation.knn` say
    train   `whole`: it learns once, from whole training clips; `cut`: for every share anew, from training
            clips that end in the same way
    """

    shares: tuple[Seen, ...] = Field(default=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), min_length=1)
    probe: ProbeName = "linear"
    train: Literal["whole", "cut"] = "whole"

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        _check_ascending("shares", self.shares)
        return self

    @property
    def evaluator(self) -> str:
        """What its results are called: early, early_knn, early_cut or early_knn_cut."""
        knn, cut = self.probe == "knn", self.train == "cut"
        return "early" + "_knn" * knn + "_cut" * cut


class RobustnessConfig(Config):
    """Recognition of damaged test clips, by a probe that learned from sound ones.

    Each of the first six is a curve over levels, ascending; an empty list leaves it out.

    missing   which share of a body's joints is missing
    noise     the standard deviation of the noise on x, y and z, in their unit (metres, where they have one)
    rotation  up to how many degrees a clip is turned about the vertical, either way
    dropped   which share of the frames between a clip's first and last is lost
    size      up to which share a clip is larger or smaller
    tempo     up to which share a clip is faster in its middle and slower at its ends, or the other way round
    joints    `clip`: the same joints are missing throughout a clip; `frame`: others in every frame
    probe     what learns: `linear` or `knn`, as `evaluation.linear` and `evaluation.knn` say
    draws     how often every level but 0 is drawn anew; scores are means
    seed      of the random numbers: with the same one they are the same for every run
    """

    missing: tuple[Lost, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    noise: tuple[Deviation, ...] = (0.0, 0.01, 0.02, 0.05, 0.1)
    rotation: tuple[Degrees, ...] = (0.0, 30.0, 60.0, 90.0, 135.0, 180.0)
    dropped: tuple[Lost, ...] = (0.0, 0.25, 0.5, 0.75)
    size: tuple[Lost, ...] = (0.0, 0.1, 0.2, 0.3, 0.5)
    tempo: tuple[Lost, ...] = (0.0, 0.2, 0.4, 0.6, 0.8)
    joints: Literal["clip", "frame"] = "clip"
    probe: ProbeName = "linear"
    draws: int = Field(default=3, ge=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        for name, levels in self.levels.items():
            _check_ascending(name, levels)
        if not self.levels:
            raise ValueError(f"{', '.join(_CURVES)} are all empty; give one of them levels")
        return self

    @property
    def levels(self) -> dict[str, tuple[float, ...]]:
        """The levels of each curve that there is."""
        curves = {name: getattr(self, name) for name in _CURVES}
        return {name: levels for name, levels in curves.items() if levels}

    @property
    def evaluator(self) -> str:
        """What its results are called: robustness, robustness_knn, and with joints=frame an _frame more."""
        return "robustness" + "_knn" * (self.probe == "knn") + "_frame" * (self.joints == "frame")


def damaged(store: Store, curve: str, level: float, draw: int, config: RobustnessConfig) -> Store:
    """The recordings of a store as they are at this level of a curve.

    The random numbers of a draw are those of all levels: what is lost at one is lost at every higher one.
    """
    rng = np.random.default_rng(derive_seed(config.seed, "robustness", curve, draw))
    if curve == "missing":
        return without_joints(store, level, rng, throughout=config.joints == "clip")
    damages: dict[str, Callable[[Store, float, np.random.Generator], Store]] = {
        "noise": with_noise,
        "rotation": turned_about_vertical,
        "dropped": without_frames,
        "size": resized,
        "tempo": at_another_tempo,
    }
    return damages[curve](store, level, rng)


def _check_ascending(key: str, levels: tuple[float, ...]) -> None:
    """Refuse levels that repeat or go back."""
    for one, other in pairwise(levels):
        if other <= one:
            raise ValueError(f"{key}: {other:g} stands after {one:g}; let them ascend, each once")
