import math

import pytest
import torch
from builders import LAYOUT, moving, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from ssl_skeleton.data.clips import Clips, body_mask
from ssl_skeleton.data.views.augment import (
    AugmentConfig,
    augment,
    check_augment,
    draw_masks,
    draw_turn,
    draw_window,
    mask,
    mirror,
    reverse,
    rotation_matrix,
)
from ssl_skeleton.data.views.axes import turned, with_space
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.errors import UserError

ALL = AugmentConfig(rotate=(10, 30, 10), shear=0.2, scale=0.2, flip=0.5, reverse=0.5, noise=0.01)


def seeded(clips: int, seed: int = 0) -> Draws:
    return Draws(Generator().manual_seed(seed), clips)


def masked(clips: Clips, config: AugmentConfig) -> Clips:
    _, _, frames, joints, _ = clips.x.shape
    return mask(clips, draw_masks(frames, joints, config, seeded(len(clips))))


def augmented(clips: Clips, config: AugmentConfig, draws: Draws) -> Clips:
    """The turn, which a view does together with the normalisation, and everything after it."""
    turn_ncd = draw_turn(config, draws)
    if turn_ncd is not None:
        clips = clips.with_x(with_space(clips.x, turned(clips.x[:, :3], turn_ncd)))
    return augment(clips, LAYOUT, config, draws)


def changed(clips: Clips, seed: int = 0, **how) -> Tensor:
    return augmented(clips, AugmentConfig(**how), seeded(len(clips), seed)).x


def spans(x_nctvm: Tensor) -> Tensor:
    """The distance of every joint from the next one on the axis, (N, T, V, M)."""
    return (x_nctvm - x_nctvm.roll(1, dims=3)).norm(dim=1)


def same_clips(count: int) -> Clips:
    clips = moving(clips=1)
    parts = (clips.x, clips.lengths, clips.index, clips.label)
    return Clips(*(part.expand(count, *part.shape[1:]) for part in parts))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_defaults_change_nothing(seed):
    clips, generator, config = moving(seed=seed), Generator(), AugmentConfig()
    draws, before = Draws(generator, len(clips)), generator.get_state()
    assert torch.equal(augmented(clips, config, draws).x, clips.x)
    assert draw_masks(6, len(LAYOUT.joints), config, draws) == []
    assert torch.equal(mask(clips, []).x, clips.x)
    assert draw_window(config, draws) is None
    assert torch.equal(generator.get_state(), before)


@given(st.tuples(*[st.floats(-7, 7)] * 3))
@settings(max_examples=50, deadline=None)
def test_rotations_turn_about_x_then_y_then_z(angles):
    wanted = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate(angles):
        one, two = [(1, 2), (2, 0), (0, 1)][axis]
        turn = torch.eye(3, dtype=torch.float64)
        turn[one, one] = turn[two, two] = math.cos(angle)
        turn[one, two], turn[two, one] = -math.sin(angle), math.sin(angle)
        wanted = turn @ wanted
    found = rotation_matrix(torch.tensor([angles], dtype=torch.float64))[0]
    torch.testing.assert_close(found, wanted)


@given(seeds, st.tuples(*[st.floats(0, 180)] * 3))
@settings(max_examples=30, deadline=None)
def test_rotation_keeps_distances(seed, degrees):
    clips = moving(seed=seed)
    turned = changed(clips, seed, rotate=degrees)
    torch.testing.assert_close(spans(turned), spans(clips.x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(turned.norm(dim=1), clips.x.norm(dim=1), atol=1e-4, rtol=1e-4)


@given(seeds, st.floats(1, 90))
@settings(max_examples=30, deadline=None)
def test_rotation_stays_within_its_limit(seed, degrees):
    clips = moving(seed=seed)
    turned = changed(clips, seed, rotate=(0.0, degrees, 0.0))
    torch.testing.assert_close(turned[:, 1], clips.x[:, 1])
    plane, before = turned[:, ::2], clips.x[:, ::2]
    cosine = (plane * before).sum(1) - before.norm(dim=1) ** 2 * math.cos(math.radians(degrees))
    assert (cosine > -1e-3).all()
    assert not torch.allclose(turned, clips.x)


@given(seeds, st.floats(0.01, 0.9))
@settings(max_examples=30, deadline=None)
def test_scale_is_one_factor_a_clip_within_its_limit(seed, limit):
    clips = moving(seed=seed)
    scaled = changed(clips, seed, scale=limit)
    for n in range(len(clips)):
        factor = (scaled[n] * clips.x[n]).sum() / clips.x[n].square().sum()
        assert 1 - limit - 1e-4 <= factor <= 1 + limit + 1e-4
        torch.testing.assert_close(scaled[n], factor * clips.x[n], atol=1e-4, rtol=1e-4)


@given(seeds, st.floats(0.01, 1))
@settings(max_examples=30, deadline=None)
def test_shear_adds_shares_of_the_other_axes(seed, limit):
    clips = moving(seed=seed)
    moved = changed(clips, seed, shear=limit) - clips.x
    others = clips.x.abs().sum(dim=1, keepdim=True) - clips.x.abs()
    assert (moved.abs() <= limit * others + 1e-4).all()
    assert moved.any()


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_mirroring_swaps_sides_and_twice_is_none(seed):
    x_nctvm = moving(seed=seed).x
    image = mirror(x_nctvm, LAYOUT)
    assert torch.equal(mirror(image, LAYOUT), x_nctvm)
    left, right = (LAYOUT.index(f"{side}_wrist") for side in ("left", "right"))
    sign = torch.tensor([-1.0, 1.0, 1.0])[:, None, None]
    assert torch.equal(image[:, :, :, left], sign * x_nctvm[:, :, :, right])
    head = LAYOUT.index("head")
    assert torch.equal(image[:, :, :, head], sign * x_nctvm[:, :, :, head])


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_reversing_keeps_the_padding_and_twice_is_none(seed):
    clips = moving(seed=seed)
    filled = clips.x + 1  # padding that can be told apart
    backwards = reverse(filled, clips.lengths)
    for n, length in enumerate(clips.lengths.tolist()):
        assert torch.equal(backwards[n, :, :length], filled[n, :, :length].flip(1))
        assert torch.equal(backwards[n, :, length:], filled[n, :, length:])
    assert torch.equal(reverse(backwards, clips.lengths), filled)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("flip", lambda clips: mirror(clips.x, LAYOUT)),
        ("reverse", lambda clips: reverse(clips.x, clips.lengths)),
    ],
)
def test_flip_and_reverse_take_clips_as_often_as_asked(name, wanted):
    clips = moving(clips=400, frames=3, bodies=1)
    assert torch.equal(changed(clips, **{name: 1.0}), wanted(clips))
    found = changed(clips, **{name: 0.3})
    taken = (found == wanted(clips)).flatten(1).all(dim=1)
    left = (found == clips.x).flatten(1).all(dim=1)
    assert (taken | left).all()
    assert 0.2 < (~left).float().mean() < 0.4


@given(seeds, st.booleans(), st.floats(0.001, 0.5))
@settings(max_examples=30, deadline=None)
def test_noise_comes_only_upon_bodies_that_are_seen(seed, backwards, strength):
    clips = moving(seed=seed)
    still = changed(clips, seed, reverse=float(backwards))
    noisy = changed(clips, seed, reverse=float(backwards), noise=strength)
    seen = body_mask(still).expand_as(still)
    assert not noisy[~seen].any()
    assert (noisy - still)[seen].std().item() == pytest.approx(strength, rel=0.2)
    assert abs((noisy - still)[seen].mean().item()) < 0.2 * strength


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_further_coordinates_follow_their_joint_and_frame_alone(seed):
    clips = moving(seed=seed)
    sure = torch.rand(clips.x[:, :1].shape) * body_mask(clips.x)
    more = clips.with_x(torch.cat([clips.x, sure], dim=1))
    found = augmented(more, ALL, seeded(len(clips), seed)).x
    assert torch.equal(found[:, :3], augmented(clips, ALL, seeded(len(clips), seed)).x)
    assert sorted(found[:, 3].flatten().tolist()) == sorted(sure.flatten().tolist())
    moved = changed(more, seed, flip=1.0, reverse=1.0)
    order = list(LAYOUT.mirror_order)
    assert torch.equal(moved[:, 3:], reverse(sure[:, :, :, order], clips.lengths))


@given(seeds, st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_what_is_seen_follows_the_joints(seed, flip, backwards):
    """Flipped and reversed clips say of the very joints that are zero that they are not seen."""
    clips = moving(seed=seed)
    kept = torch.rand(clips.x[:, :1].shape, generator=Generator().manual_seed(seed)) < 0.7
    there = kept & (clips.x != 0).any(dim=1, keepdim=True)
    clips = Clips(clips.x * there, clips.lengths, clips.index, clips.label, there)
    found = augment(clips, LAYOUT, AugmentConfig(flip=flip, reverse=backwards), seeded(len(clips), seed))
    assert torch.equal(found.seen, (found.x != 0).any(dim=1, keepdim=True))
    if flip == 1.0 and not backwards:
        assert torch.equal(found.seen, there[:, :, :, list(LAYOUT.mirror_order)])
    if backwards == 1.0 and not flip:
        assert torch.equal(found.seen, reverse(there, clips.lengths))


def test_a_layout_without_sides_cannot_be_flipped():
    layout = LAYOUT.model_copy(update={"mirror": {}})
    check_augment(layout, AugmentConfig(rotate=(10, 30, 10), reverse=0.5))
    check_augment(LAYOUT, ALL)
    with pytest.raises(UserError, match=r"augment.flip: the layout kinect_v1_20 does not say .* set it to 0"):
        check_augment(layout, AugmentConfig(flip=0.5))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_masks_hide_about_the_asked_share(share):
    clips = moving(clips=200, frames=8, bodies=2)
    clips = clips.with_x(torch.ones_like(clips.x))
    joints = masked(clips, AugmentConfig(mask_joints=share)).x
    frames = masked(clips, AugmentConfig(mask_frames=share)).x
    for hidden, kept_nx in ((joints, joints[:, 0, 0, :, 0]), (frames, frames[:, 0, :, 0, 0])):
        assert set(hidden.unique().tolist()) == {0.0, 1.0}
        assert 1 - kept_nx.mean().item() == pytest.approx(share, abs=0.05)
        assert len(kept_nx.unique(dim=0)) > 10
    assert torch.equal(joints, joints[:, :1, :1, :, :1].expand_as(joints))
    assert torch.equal(frames, frames[:, :1, :, :1, :1].expand_as(frames))


def test_masks_hide_whole_parts_and_leave_the_rest():
    clips = moving(clips=20)
    hidden = masked(clips, AugmentConfig(mask_joints=0.4, mask_frames=0.4)).x
    assert ((hidden == clips.x) | (hidden == 0)).all()
    assert not torch.equal(hidden, clips.x)


@given(seeds, seeds)
@settings(max_examples=30, deadline=None)
def test_a_seed_gives_the_same_change_and_another_another(seed, other):
    clips = moving(seed=seed)
    found = augmented(clips, ALL, seeded(len(clips), seed)).x
    assert torch.equal(found, augmented(clips, ALL, seeded(len(clips), seed)).x)
    assert (seed == other) is torch.equal(found, augmented(clips, ALL, seeded(len(clips), other)).x)


@pytest.mark.parametrize(
    "how",
    [{"rotate": (0, 30, 0)}, {"shear": 0.3}, {"scale": 0.3}, {"noise": 0.1}],
    ids=lambda how: next(iter(how)),
)
def test_clips_of_a_batch_change_differently(how):
    found = changed(same_clips(4), **how)
    for n in range(1, 4):
        assert not torch.allclose(found[n], found[n - 1], atol=1e-4)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_what_is_drawn_does_not_depend_on_what_the_clips_show(seed):
    config = AugmentConfig(rotate=(10, 30, 10), shear=0.2, scale=0.2, flip=0.5)
    one, two = (Generator().manual_seed(seed) for _ in range(2))
    clips = moving(seed=seed)
    found = augmented(clips, config, Draws(one, len(clips))).x
    doubled = augmented(clips.with_x(2 * clips.x), config, Draws(two, len(clips))).x
    torch.testing.assert_close(doubled, 2 * found)
    assert torch.equal(one.get_state(), two.get_state())


@given(seeds, st.floats(0.01, 0.99))
@settings(max_examples=30, deadline=None)
def test_windows_are_shares_no_shorter_than_the_crop(seed, crop):
    window = draw_window(AugmentConfig(crop=crop), seeded(50, seed))
    assert window.shape == (50, 2)
    start, share = window.unbind(dim=1)
    assert ((start >= 0) & (start < 1)).all()
    assert ((share >= crop - 1e-6) & (share <= 1)).all()
    assert share.std() > 0.1 * (1 - crop)
    assert start.std() > 0.1


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": 0.0},
        {"crop": 1.1},
        {"rotate": [1.0, 2.0]},
        {"shear": -0.1},
        {"scale": 1.0},
        {"flip": 2.0},
        {"noise": -1.0},
        {"mask_joints": 1.0},
        {"rotat": [0, 0, 0]},
    ],
)
def test_impossible_changes_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        AugmentConfig.from_tree(wrong, "here")
