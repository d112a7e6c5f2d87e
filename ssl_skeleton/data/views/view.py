"""A view: crop and resample, normalise, augment, pick streams, mask; in this order."""

from pydantic import Field
from torch import Generator, Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.views.augment import AugmentConfig, augment, draw_window, mask
from ssl_skeleton.data.views.normalise import NormaliseConfig, normalise
from ssl_skeleton.data.views.streams import Stream, streams


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


def make_view(
    packed: PackedClips,
    index: Tensor,
    sampling: SamplingConfig,
    view: ViewConfig,
    generator: Generator | None,
) -> Clips:
    """The clips `index` (N,) as one view sees them; without a generator nothing is augmented."""
    layout, change = packed.layout, view.augment
    if generator is None:
        clips = normalise(packed.gather(index, sampling.frames), layout, sampling.normalise)
        return streams(clips, layout, view.streams)
    window = draw_window(len(index), change, generator)
    clips = normalise(packed.gather(index, sampling.frames, window), layout, sampling.normalise)
    clips = augment(clips, layout, change, generator)
    return mask(streams(clips, layout, view.streams), change, generator)
