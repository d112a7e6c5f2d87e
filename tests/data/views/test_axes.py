"""How clips lie in memory, and which short ways are taken where nothing is missing, changes no view."""

from collections.abc import Callable

import pytest
import torch
from builders import seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from ssl_skeleton.data.clips import Clips, body_mask
from ssl_skeleton.data.views.agcn import agcn
from ssl_skeleton.data.views.augment import AugmentConfig, augment, draw_turn, mirror, reverse
from ssl_skeleton.data.views.axes import channels_last, moved, pick, stacked, turned, with_space
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.data.views.normalise import NormaliseConfig, normalise
from ssl_skeleton.data.views.streams import Stream, streams
from ssl_skeleton.skeleton.layout import Layout, layout_names, load_layout

NTU = load_layout("kinect_v2_25")
layouts = st.sampled_from(layout_names()).map(load_layout)
ways = st.fixed_dictionaries(
    {
        "center": st.sampled_from(["none", "first_frame", "each_frame"]),
        "facing": st.sampled_from(["none", "yaw", "body"]),
        "scale": st.sampled_from(["none", "torso", "minmax"]),
    }
).map(lambda names: NormaliseConfig(**names))
names_of_streams = st.lists(st.sampled_from(Stream.__args__), min_size=1, max_size=3)
View = Callable[[Clips], Tensor]


def people(layout: Layout, seed: int, *, bodies: int = 2, channels: int = 3, missing: float = 0.0) -> Clips:
    """Clips of noise in float64; each body is missing in this share of frames."""
    source, shape = Generator().manual_seed(seed), (3, channels, 5, len(layout.joints), bodies)
    x_nctvm = 2 + torch.rand(*shape, generator=source, dtype=torch.float64)
    x_nctvm *= torch.rand(3, 1, 5, 1, bodies, generator=source) >= missing
    numbers = torch.arange(3)
    return Clips(x_nctvm, torch.full((3,), 5), numbers, numbers, body_mask(x_nctvm))


def generally(clips: Clips) -> Clips:
    """The same clips, taken for ones in which something may be missing."""
    other = clips.with_x(clips.x)
    vars(other)["holed"] = torch.arange(len(clips))
    return other


def joint_by_joint(clips: Clips) -> Clips:
    """The same clips, taken for ones in which single joints may be missing."""
    seen = clips.seen.expand(-1, -1, -1, clips.x.shape[3], -1)
    return generally(Clips(clips.x, clips.lengths, clips.index, clips.label, seen))


def draws(seed: int) -> Draws:
    return Draws(Generator().manual_seed(seed), 3)


def every_view(layout: Layout, how: NormaliseConfig, names: list[Stream], seed: int) -> list[View]:
    change = AugmentConfig(flip=0.5, reverse=0.5, noise=0.01)
    views: list[View] = [
        lambda clips: normalise(clips, layout, how).x,
        lambda clips: streams(clips, layout, names).x,
        lambda clips: augment(clips, layout, change, draws(seed)).x,
    ]
    return views if layout.name != NTU.name else [*views, lambda clips: agcn(clips, layout).x]


@given(seeds, layouts, ways, names_of_streams, st.tuples(st.integers(1, 2), st.integers(3, 4)))
@settings(max_examples=60, deadline=None)
def test_the_short_way_leads_to_the_same_view(seed, layout, how, names, size):
    bodies, channels = size
    clips = people(layout, seed, bodies=bodies, channels=channels)
    assert clips.full
    for view in every_view(layout, how, names, seed):
        torch.testing.assert_close(view(clips), view(generally(clips)))
        torch.testing.assert_close(view(clips), view(joint_by_joint(clips)))


@given(seeds, layouts, ways, names_of_streams, st.sampled_from([0.0, 0.4]))
@settings(max_examples=40, deadline=None)
def test_how_clips_lie_in_memory_makes_no_difference(seed, layout, how, names, missing):
    clips = people(layout, seed, missing=missing)
    x_nctvm = channels_last(channels_last(clips.x).contiguous())
    assert torch.equal(x_nctvm, clips.x)
    assert x_nctvm.stride() != clips.x.stride()
    for view in every_view(layout, how, names, seed):
        torch.testing.assert_close(view(clips.with_x(x_nctvm)), view(clips))


@given(seeds, layouts, ways)
@settings(max_examples=40, deadline=None)
def test_a_turn_comes_after_the_normalisation(seed, layout, how):
    clips = people(layout, seed)
    change = AugmentConfig(rotate=(10, 90, 10), shear=0.3, scale=0.2)
    turn_ncd = draw_turn(change, draws(seed)).double()
    found = normalise(clips, layout, how, turn_ncd).x
    plain = torch.einsum("ncd,ndtvm->nctvm", turn_ncd, normalise(clips, layout, how).x)
    torch.testing.assert_close(found, plain)
    if layout.name == NTU.name:
        plain = torch.einsum("ncd,ndtvm->nctvm", turn_ncd, agcn(clips, layout).x)
        torch.testing.assert_close(agcn(clips, layout, turn_ncd).x, plain)


@given(seeds, st.integers(1, 2))
@settings(max_examples=20, deadline=None)
def test_points_are_turned_and_moved_as_they_are_in_plain_words(seed, bodies):
    source, x_nctvm = Generator().manual_seed(seed), people(NTU, seed, bodies=bodies).x
    matrix_ncd = torch.randn(3, 3, 3, generator=source, dtype=torch.float64)
    torch.testing.assert_close(
        turned(x_nctvm, matrix_ncd), torch.einsum("ncd,ndtvm->nctvm", matrix_ncd, x_nctvm)
    )
    for frames in (1, 5):
        origin = torch.randn(3, 3, frames, 1, 1, generator=source, dtype=torch.float64)
        assert torch.equal(moved(x_nctvm, origin), x_nctvm - origin)
    order = tuple(torch.randperm(25, generator=source).tolist())
    assert torch.equal(pick(x_nctvm, order), x_nctvm[:, :, :, list(order)])
    assert torch.equal(stacked([x_nctvm, x_nctvm[:, :1]]), torch.cat([x_nctvm, x_nctvm[:, :1]], dim=1))


def test_what_is_given_is_left_as_it_was():
    """Views work in place only on what is theirs."""
    clips = people(NTU, 0)
    before = clips.x.clone()
    views = every_view(NTU, NormaliseConfig(), ["bone", "motion"], 0)
    for kind in (clips, generally(clips), joint_by_joint(clips)):
        for view in views:
            view(kind)
        mirror(kind.x, NTU), reverse(kind.x, kind.lengths)
    assert torch.equal(clips.x, before)


@pytest.mark.parametrize("channels", [3, 4])
def test_other_coordinates_stand_behind_those_in_space(channels):
    clips = people(NTU, 0, channels=channels)
    found = with_space(clips.x, -clips.x[:, :3])
    assert torch.equal(found, torch.cat([-clips.x[:, :3], clips.x[:, 3:]], dim=1))
