import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import LAYOUT, seeds, write_store
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import METRES, Facts, Recording, Track
from ssl_skeleton.data.store import open_store
from ssl_skeleton.data.views.augment import AugmentConfig, draw_window, mirror
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.data.views.normalise import NormaliseConfig, normalise
from ssl_skeleton.data.views.streams import streams
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, check_view, make_view
from ssl_skeleton.errors import UserError

INDEX = torch.tensor([3, 0, 2, 2])
STRONG = AugmentConfig(crop=0.4, rotate=(10, 30, 10), shear=0.2, flip=0.5, noise=0.01, mask_joints=0.2)
lengths = st.sampled_from([None, 2, 7, 16])


@cache
def walking(names: tuple[str, ...] = METRES, *, flat: bool = False, hidden: str | None = None) -> PackedClips:
    """Four clips of random walks with these coordinates; the last shows two bodies.

    Where it is `flat`, z is zero; the joint `hidden` is never found, any other one is sure by a half.
    """
    rng = np.random.default_rng(0)
    clips = []
    for n, frames in enumerate((20, 11, 30, 14)):
        walks = rng.normal(size=(2, frames, len(LAYOUT.joints), 3)).cumsum(1).astype(np.float32)
        x, y, z = np.moveaxis(walks, 3, 0)
        every = {"x": x, "y": y, "z": 0 * z if flat else z, "confidence": np.full_like(x, 0.5)}
        walks = np.stack([every[name] for name in names], axis=3)
        if hidden:
            walks[:, :, LAYOUT.index(hidden)] = 0
        bodies = [Track(0, walks[0]), Track(3, walks[1, :8])][: 1 + (n == 3)]
        clips.append(Recording(str(n), frames, bodies))
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "store", clips, facts=Facts("walks", LAYOUT, 30.0, coordinates=names))
        return PackedClips(open_store(Path(folder) / "store"), bodies=2)


@pytest.fixture(scope="module")
def packed() -> PackedClips:
    return walking()


def seen(packed, view: ViewConfig, seed: int | None, **sampling) -> Clips:
    draws = None if seed is None else Draws(Generator().manual_seed(seed), len(INDEX))
    return make_view(packed, INDEX, SamplingConfig(bodies=2, **sampling), view, draws)


@given(lengths, st.sampled_from(["joint", "bone", "motion"]))
@settings(max_examples=12, deadline=None)
def test_evaluation_sees_clips_as_they_are(packed, frames, stream):
    view = ViewConfig(streams=(stream,), augment=STRONG)
    found, again = (seen(packed, view, None, frames=frames) for _ in range(2))
    plain = normalise(packed.gather(INDEX, frames), LAYOUT, NormaliseConfig())
    assert torch.equal(found.x, streams(plain, LAYOUT, [stream]).x)
    assert torch.equal(found.x, again.x)
    assert torch.equal(found.lengths, plain.lengths)
    assert torch.equal(found.index, INDEX)


@given(seeds, seeds, lengths)
@settings(max_examples=30, deadline=None)
def test_a_seed_gives_a_view_again(packed, seed, other, frames):
    view = ViewConfig(streams=("joint", "motion"), augment=STRONG)
    found = seen(packed, view, seed, frames=frames)
    again = seen(packed, view, seed, frames=frames)
    assert torch.equal(found.x, again.x)
    assert torch.equal(found.lengths, again.lengths)
    different = seen(packed, view, other, frames=frames)
    assert (seed == other) is (found.x.shape == different.x.shape and torch.equal(found.x, different.x))
    assert found.x.shape[1] == 6


@given(seeds, lengths)
@settings(max_examples=30, deadline=None)
def test_views_of_one_seed_and_crop_share_their_window(packed, seed, frames):
    crop = AugmentConfig(crop=0.3)
    one = seen(packed, ViewConfig(augment=crop), seed, frames=frames)
    flipped = seen(packed, ViewConfig(augment=AugmentConfig(crop=0.3, flip=1.0)), seed, frames=frames)
    motion = seen(packed, ViewConfig(streams=("motion",), augment=crop), seed, frames=frames)
    assert torch.equal(flipped.x, mirror(one.x, LAYOUT))
    assert torch.equal(motion.x, streams(one, LAYOUT, ["motion"]).x)
    assert torch.equal(motion.lengths, one.lengths)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_streams_of_one_seed_and_augmentation_belong_together(packed, seed):
    change = AugmentConfig(crop=0.4, rotate=(10, 30, 10), shear=0.2, flip=0.5, reverse=0.5, noise=0.01)
    joint = seen(packed, ViewConfig(augment=change), seed)
    both = seen(packed, ViewConfig(streams=("bone", "motion"), augment=change), seed)
    assert torch.equal(both.x, streams(joint, LAYOUT, ["bone", "motion"]).x)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_masks_come_last(packed, seed):
    """A hidden joint is hidden in every stream, and its neighbours' bones do not tell of it."""
    names = ("joint", "bone", "motion")
    whole = seen(packed, ViewConfig(streams=names), seed).x
    masked = seen(packed, ViewConfig(streams=names, augment=AugmentConfig(mask_joints=0.5)), seed).x
    hidden_nv = ~masked.any(dim=1).any(dim=1).any(dim=2)
    assert hidden_nv.any()
    assert torch.equal(masked, whole * ~hidden_nv[:, None, None, :, None])


@given(seeds, st.floats(0.2, 0.9))
@settings(max_examples=20, deadline=None)
def test_crops_at_the_own_rate_are_as_long_as_asked(packed, seed, crop):
    found = seen(packed, ViewConfig(augment=AugmentConfig(crop=crop)), seed, frames=None)
    whole = packed.lengths[INDEX]
    assert (found.lengths >= crop * whole - 1).all()
    assert (found.lengths <= whole).all()
    assert found.x.shape[2] == found.lengths.max()


@pytest.mark.parametrize("frames", [None, 16])
def test_a_crop_shows_the_part_that_its_seed_draws(packed, frames):
    change = AugmentConfig(crop=0.3)
    window = draw_window(change, Draws(Generator().manual_seed(5), len(INDEX)))
    plain = normalise(packed.gather(INDEX, frames, window), LAYOUT, NormaliseConfig())
    found = seen(packed, ViewConfig(augment=change), 5, frames=frames)
    assert torch.equal(found.x, plain.x)
    whole = seen(packed, ViewConfig(), 5, frames=frames)
    assert found.x.shape != whole.x.shape or not torch.allclose(found.x, whole.x)


FLAT = NormaliseConfig(facing="none")
XY, XYC = ("x", "y"), ("x", "y", "confidence")
LOOPED = {"normalise": "agcn", "frames": 300}


@given(
    seeds,
    st.tuples(
        st.sampled_from(["none", "first_frame", "each_frame"]), st.sampled_from(["none", "torso", "minmax"])
    ),
    st.booleans(),
    st.sampled_from([("joint",), ("bone", "motion"), ("bone_motion",)]),
)
@settings(max_examples=40, deadline=None)
def test_a_plane_is_a_space_without_depth(seed, how, trained, names):
    center, scale = how
    normalised = NormaliseConfig(center=center, facing="none", scale=scale)
    view = ViewConfig(streams=names, augment=STRONG)
    flat, sure, space = (
        seen(walking(axes, flat=True), view, seed if trained else None, normalise=normalised).x
        for axes in (XY, XYC, ("x", "y", "z"))
    )
    plain = torch.cat([part[:, :2] for part in space.split(3, dim=1)], dim=1)
    assert torch.equal(flat, plain)
    assert torch.equal(torch.cat([part[:, :2] for part in sure.split(3, dim=1)], dim=1), plain)
    assert set(sure[:, 2::3].unique().tolist()) == {0.0, 0.5}


@pytest.mark.parametrize("scale", ["none", "minmax"])
@pytest.mark.parametrize("names", [XY, XYC, ("x", "y", "z", "confidence")])
def test_a_joint_that_was_not_found_stays_at_zero(names, scale):
    other, hand = walking(names, hidden="left_hand"), LAYOUT.index("left_hand")
    found = seen(other, ViewConfig(), None, normalise=NormaliseConfig(facing="none", scale=scale)).x
    assert not found[:, :, :, hand].any()
    assert found[:, :, :, hand - 1].any()


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_confidence_beside_a_space_changes_nothing_in_it(packed, seed):
    other = walking((*METRES, "confidence"))
    view = ViewConfig(streams=("joint", "motion"), augment=STRONG)
    found = seen(other, view, seed).x
    places = torch.cat([part[:, :3] for part in found.split(4, dim=1)], dim=1)
    assert torch.equal(places, seen(packed, view, seed).x)


@pytest.mark.parametrize(
    ("coordinates", "sampling", "view", "message"),
    [
        (
            XYC,
            {},
            {},
            "data.normalise.facing: needs x, y and z, but the store has x, y, confidence; set it to",
        ),
        (("y", "x"), {}, {}, "coordinates y, x; they should begin with x, y or x, y, z"),
        (("x",), {}, {}, "they should begin with"),
        (("x", "y", "confidence", "z"), {}, {}, "they should begin with"),
        (("x", "y", "z", "c", "c"), {}, {}, "they should begin with"),
        (
            XY,
            {"normalise": FLAT},
            {"augment": AugmentConfig(flip=0.5)},
            "augment.flip: the layout stick does",
        ),
        (("x", "y", "z"), {}, {}, "data.normalise.facing: the layout stick does not say"),
        (XY, LOOPED, {}, "data.normalise: agcn needs x, y and z, but the store has x, y; set it to"),
        (XYC, LOOPED, {}, "data.normalise: agcn needs x, y and z, but the store has x, y, confidence; set"),
        (("x", "y", "z"), LOOPED, {}, "data.normalise: agcn turns bodies by their spine and shoulders, but"),
        (("x", "y", "z"), {**LOOPED, "frames": None}, {}, "data.frames: null keeps each clip's own frames"),
    ],
)
def test_what_cannot_be_seen_is_refused_early(coordinates, sampling, view, message):
    layout = LAYOUT.model_copy(update={"name": "stick", "mirror": {}, "facing": None})
    with pytest.raises(UserError, match=message):
        check_view(layout, coordinates, SamplingConfig(**sampling), ViewConfig(**view))


@pytest.mark.parametrize("coordinates", [XY, XYC, ("x", "y", "z"), ("x", "y", "z", "confidence")])
def test_what_can_be_seen_is_not_refused(coordinates):
    check_view(LAYOUT, coordinates, SamplingConfig(normalise=FLAT), ViewConfig(augment=STRONG))


@pytest.mark.parametrize("coordinates", [("x", "y", "z"), ("x", "y", "z", "confidence")])
def test_looped_clips_are_not_refused(coordinates):
    check_view(LAYOUT, coordinates, SamplingConfig(**LOOPED), ViewConfig(augment=STRONG))


@pytest.mark.parametrize(
    "wrong", [{"frames": 1}, {"bodies": 0}, {"frame": 3}, {"normalise": {"center": "root"}}]
)
def test_impossible_samplings_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        SamplingConfig.from_tree(wrong, "here")


@pytest.mark.parametrize("wrong", [{"streams": []}, {"streams": ["bones"]}, {"augment": {"crop": 0.0}}])
def test_impossible_views_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        ViewConfig.from_tree(wrong, "here")
