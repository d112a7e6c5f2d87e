"""A view: crop and resample or loop, normalise, augment, pick streams, mask; in this order."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Generator, Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import Order, PackedClips
from ssl_skeleton.data.views.agcn import agcn, check_agcn
from ssl_skeleton.data.views.augment import AugmentConfig, augment, check_augment, draw_window, mask
from ssl_skeleton.data.views.normalise import Normalise, NormaliseConfig, check_normalise, normalise
from ssl_skeleton.data.views.streams import Stream, streams
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout

_SPACE = ("x", "y", "z")


class SamplingConfig(Config):
    """What all views of a run share.

    frames     T, to which every clip is resampled; null keeps each clip's own frames and pads the batch
    bodies     M, how many bodies an encoder sees
    normalise  what is taken out of the coordinates; `agcn` does what published AGCN weights were trained on,
               and so loops clips to T frames instead (300 there), and takes the bodies that move most
    """

    frames: int | None = Field(default=32, ge=2, le=4096)
    bodies: int = Field(default=1, ge=1)
    normalise: Normalise = NormaliseConfig()

    @property
    def order(self) -> Order:
        """Which of its bodies stand for a clip."""
        return "moving" if self.normalise == "agcn" else "stored"


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
    needs = f"needs x, y and z, but the store has {names}; set it to"
    if sampling.normalise == "agcn":
        if space == 2:
            raise UserError(f"data.normalise: agcn {needs} {{center: first_frame, facing: none}}")
        _looped_frames(sampling)
        check_agcn(layout)
    else:
        if space == 2 and sampling.normalise.facing != "none":
            raise UserError(f"data.normalise.facing: {needs} none")
        check_normalise(layout, sampling.normalise)
    check_augment(layout, view.augment)


def make_view(
    packed: PackedClips,
    index: Tensor,
    sampling: SamplingConfig,
    view: ViewConfig,
    generator: Generator | None,
    *,
    resample: int | None = None,
) -> Clips:
    """The clips `index` (N,) as one view sees them; without a generator nothing is augmented.

    `packed` has its bodies in the order of `sampling`. `resample` takes the place of `sampling.frames`, and
    then clips are resampled even where `sampling` loops them. Clips in a plane are moved, turned and sheared
    as if they lay in space at z = 0, and seen from the front.
    """
    layout, change = packed.layout, view.augment
    window = None if generator is None else draw_window(len(index), change, generator)
    if packed.order != sampling.order:
        raise ValueError(f"PackedClips has its bodies {packed.order}, not {sampling.order}")
    if sampling.normalise == "agcn" and resample is None:
        clips = packed.loop(index, _looped_frames(sampling), window)
    else:
        clips = packed.gather(index, resample or sampling.frames, window)
    space = _space(packed.coordinate_names)
    if space == 2:
        clips = _into_space(clips)
    if sampling.normalise == "agcn":
        clips = agcn(clips, layout)
    else:
        clips = normalise(clips, layout, sampling.normalise)
    if generator is not None:
        clips = augment(clips, layout, change, generator)
    if space == 2:
        clips = _into_plane(clips)
    clips = streams(clips, layout, view.streams, space)
    return clips if generator is None else mask(clips, change, generator)


def _looped_frames(sampling: SamplingConfig) -> int:
    """T, to which the normalisation `agcn` loops every clip; UserError when it is null."""
    if sampling.frames is None:
        raise UserError(
            "data.frames: null keeps each clip's own frames, but data.normalise=agcn loops them to one "
            "number; set it, as to 300"
        )
    return sampling.frames


def _space(coordinates: Sequence[str]) -> int:
    """How many of the coordinates are a place in space: they come first, in the order x, y, z."""
    return next((n for n in (3, 2) if tuple(coordinates[:n]) == _SPACE[:n]), 0)


def _into_space(clips: Clips) -> Clips:
    x_nctvm = clips.x
    return clips.with_x(torch.cat([x_nctvm[:, :2], torch.zeros_like(x_nctvm[:, :1]), x_nctvm[:, 2:]], dim=1))


def _into_plane(clips: Clips) -> Clips:
    return clips.with_x(torch.cat([clips.x[:, :2], clips.x[:, 3:]], dim=1))
