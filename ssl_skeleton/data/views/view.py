"""A view: crop and resample or loop, normalise, augment, pick streams, mask; in this order."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import Order, PackedClips
from ssl_skeleton.data.views.agcn import agcn, check_agcn
from ssl_skeleton.data.views.augment import (
    AugmentConfig,
    augment,
    check_augment,
    draw_masks,
    draw_turn,
    draw_window,
    mask,
)
from ssl_skeleton.data.views.axes import stacked
from ssl_skeleton.data.views.draws import Draws
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
    draws: Draws | None,
    *,
    resample: int | None = None,
    window: Tensor | None = None,
) -> Clips:
    """The clips `index` (N,) as one view sees them; without `draws` nothing is augmented.

    `index` is a whole global batch, of which the view has the clips `draws.mine`. `packed` has its bodies in
    the order of `sampling`. `resample` takes the place of `sampling.frames`, and then clips are resampled
    even where `sampling` loops them. `window`, as in `gather`, takes the place of the crop. Clips in a plane
    are moved, turned and sheared as if they lay in space at z = 0, and seen from the front.
    """
    return make_views(packed, index, sampling, [view], draws, resample=resample, window=window)[0]


def make_views(
    packed: PackedClips,
    index: Tensor,
    sampling: SamplingConfig,
    views: Sequence[ViewConfig],
    draws: Draws | None,
    *,
    resample: int | None = None,
    window: Tensor | None = None,
) -> list[Clips]:
    """The clips `index` (N,) as several views see them that differ in their streams alone.

    They share the draws, and so crop, augmentation and masks; all else is as in `make_view`.
    """
    change = views[0].augment
    if any(view.augment != change for view in views):
        raise ValueError("views of the same draws have the same augmentation")
    if packed.order != sampling.order:
        raise ValueError(f"PackedClips has its bodies {packed.order}, not {sampling.order}")
    mine = slice(None) if draws is None else draws.mine
    if window is None and draws is not None:
        window = draw_window(change, draws)
    if sampling.normalise == "agcn" and resample is None:
        clips = packed.loop(index, _looped_frames(sampling), window, mine)
    else:
        clips = packed.gather(index, resample or sampling.frames, window, mine)
    space = _space(packed.coordinate_names)
    if space == 2:
        clips = _into_space(clips)
    clips = _positions(clips, packed.layout, sampling.normalise, change, draws)
    if space == 2:
        clips = _into_plane(clips)
    _, _, frames, joints, _ = clips.x.shape
    masks = [] if draws is None else draw_masks(frames, joints, change, draws)
    return [mask(streams(clips, packed.layout, view.streams, space), masks) for view in views]


def _positions(
    clips: Clips, layout: Layout, how: Normalise, change: AugmentConfig, draws: Draws | None
) -> Clips:
    """Where the joints are, normalised and augmented: what all streams are made of."""
    turn = None if draws is None else draw_turn(change, draws)
    if turn is not None:
        turn = turn.to(clips.x.device)
    clips = agcn(clips, layout, turn) if how == "agcn" else normalise(clips, layout, how, turn)
    return clips if draws is None else augment(clips, layout, change, draws)


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
    return clips.with_x(stacked([x_nctvm[:, :2], torch.zeros_like(x_nctvm[:, :1]), x_nctvm[:, 2:]]))


def _into_plane(clips: Clips) -> Clips:
    return clips.with_x(stacked([clips.x[:, :2], clips.x[:, 3:]]))
