"""A view: crop and resample, normalise, augment, pick streams, mask; in this order."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Generator, Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.views.augment import AugmentConfig, augment, check_augment, draw_window, mask
from ssl_skeleton.data.views.normalise import NormaliseConfig, check_normalise, normalise
from ssl_skeleton.data.views.streams import Stream, streams
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout

_SPACE = ("x", "y", "z")


class SamplingConfig(Config):
    """What all views of a run share.

    frames  T, to which every clip is resampled; null keeps each clip's own frames and pads the batch
    bodies  M, how many bodies an encoder sees
    """

    frames: int | None = Field(default=32, ge=2, le=4096)
    bodies: int = Field(default=1, ge=1)
    normalise: NormaliseConfig = NormaliseConfig()


class ViewConfig(Config):
    """What one view shows of a clip: its streams, and how it is augmented while training."""

    streams: tuple[Stream, ...] = Field(default=("joint",), min_length=1)
    augment: AugmentConfig = AugmentConfig()


def check_view(
    layout: Layout, coordinates: Sequence[str], sampling: SamplingConfig, view: ViewConfig
) -> None:
    """Raise UserError when a store of this layout and these coordinates cannot be seen in this way.

    Coordinates begin with x and y, or x, y and z; what comes after them, such as a confidence, has no place
    in space and is shown as it is.
    """
    names = ", ".join(coordinates)
    space = _space(coordinates)
    strange = [name for name in coordinates[space:] if name in _SPACE]
    if space < 2 or strange or len(set(coordinates)) != len(coordinates):
        raise UserError(f"the store has the coordinates {names}; they should begin with x, y or x, y, z")
    if space == 2 and sampling.normalise.facing != "none":
        raise UserError(f"data.normalise.facing: needs x, y and z, but the store has {names}; set it to none")
    check_normalise(layout, sampling.normalise)
    check_augment(layout, view.augment)


def make_view(
    packed: PackedClips,
    index: Tensor,
    sampling: SamplingConfig,
    view: ViewConfig,
    generator: Generator | None,
) -> Clips:
    """The clips `index` (N,) as one view sees them; without a generator nothing is augmented.

    Clips in a plane are moved, turned and sheared as if they lay in space at z = 0, and seen from the front.
    """
    layout, change = packed.layout, view.augment
    window = None if generator is None else draw_window(len(index), change, generator)
    clips = packed.gather(index, sampling.frames, window)
    space = _space(packed.coordinate_names)
    if space == 2:
        clips = _into_space(clips)
    clips = normalise(clips, layout, sampling.normalise)
    if generator is not None:
        clips = augment(clips, layout, change, generator)
    if space == 2:
        clips = _into_plane(clips)
    clips = streams(clips, layout, view.streams, space)
    return clips if generator is None else mask(clips, change, generator)


def _space(coordinates: Sequence[str]) -> int:
    """How many of the coordinates are a place in space: they come first, in the order x, y, z."""
    return next((n for n in (3, 2) if tuple(coordinates[:n]) == _SPACE[:n]), 0)


def _into_space(clips: Clips) -> Clips:
    x_nctvm = clips.x
    return clips.with_x(torch.cat([x_nctvm[:, :2], torch.zeros_like(x_nctvm[:, :1]), x_nctvm[:, 2:]], dim=1))


def _into_plane(clips: Clips) -> Clips:
    return clips.with_x(torch.cat([clips.x[:, :2], clips.x[:, 3:]], dim=1))
