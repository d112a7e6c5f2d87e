import numpy as np
import pytest
import torch
from builders import LAYOUT, seeds, stored
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.readers.base import Recording, Track
from ssl_skeleton.data.views.augment import AugmentConfig, draw_window, mirror
from ssl_skeleton.data.views.normalise import NormaliseConfig, normalise
from ssl_skeleton.data.views.streams import streams
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.errors import UserError

INDEX = torch.tensor([3, 0, 2, 2])
STRONG = AugmentConfig(crop=0.4, rotate=(10, 30, 10), shear=0.2, flip=0.5, noise=0.01, mask_joints=0.2)
lengths = st.sampled_from([None, 2, 7, 16])


@pytest.fixture(scope="module")
def packed() -> PackedClips:
    """Four clips of random walks; the last shows two bodies."""
    rng = np.random.default_rng(0)
    clips = []
    for n, frames in enumerate((20, 11, 30, 14)):
        walks = rng.normal(size=(2, frames, len(LAYOUT.joints), 3)).cumsum(1).astype(np.float32)
        bodies = [Track(0, walks[0]), Track(3, walks[1, :8])][: 1 + (n == 3)]
        clips.append(Recording(str(n), frames, bodies))
    with stored(clips) as store:
        return PackedClips(store, bodies=2)


def seen(packed, view: ViewConfig, seed: int | None, **sampling) -> Clips:
    generator = None if seed is None else Generator().manual_seed(seed)
    return make_view(packed, INDEX, SamplingConfig(bodies=2, **sampling), view, generator)


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
    window = draw_window(len(INDEX), change, Generator().manual_seed(5))
    plain = normalise(packed.gather(INDEX, frames, window), LAYOUT, NormaliseConfig())
    found = seen(packed, ViewConfig(augment=change), 5, frames=frames)
    assert torch.equal(found.x, plain.x)
    whole = seen(packed, ViewConfig(), 5, frames=frames)
    assert found.x.shape != whole.x.shape or not torch.allclose(found.x, whole.x)


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
