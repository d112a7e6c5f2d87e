import itertools
from typing import Any

import builders
import pytest
import torch
from builders import seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips, body_mask
from ssl_skeleton.data.views.augment import rotation_matrix
from ssl_skeleton.data.views.normalise import (
    NormaliseConfig,
    check_normalise,
    facing_rotation,
    normalise,
    with_space,
)
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout, Spot, layout_names, load_layout

layouts = st.sampled_from(layout_names()).map(load_layout)
CENTERS = ("none", "first_frame", "each_frame")
FACINGS = ("none", "yaw", "body")
SCALES = ("none", "torso", "minmax")
angles = st.floats(-3, 3)


def with_middle(layout: Layout) -> Layout:
    """The layout and two joints more, at the ends of a spine that is only known as a mean of joints."""
    facing = layout.facing
    ends = {"lower_spine": "middle", "upper_spine": "top"}
    ends = {end: joint for end, joint in ends.items() if not isinstance(getattr(facing, end), str)}
    root = layout.root if layout.center is None else "middle"
    more = {
        "joints": (*layout.joints, "middle", "top"),
        "facing": facing.model_copy(update=ends),
        "root": root,
    }
    return layout.model_copy(update=more)


def standing(layout: Layout, people: int, seed: int) -> Tensor:
    return builders.standing(with_middle(layout), people, seed)[:, :, :-2]


def moving(layout: Layout = builders.LAYOUT, **how: int) -> Clips:
    clips = builders.moving(with_middle(layout), **how)
    return clips.with_x(clips.x[:, :, :, :-2])


def mean_of(x: Tensor, layout: Layout, spot: Spot, dim: int = 2) -> Tensor:
    return torch.stack([x.select(dim, place) for place in layout.indices(spot)]).mean(0)


def prepared(clips: Clips, layout, there: Tensor | None = None, **names: str) -> Tensor:
    every = {"center": "none", "facing": "none", "scale": "none"}
    told = Clips(clips.x, clips.lengths, clips.index, clips.label, there)
    return normalise(told, layout, NormaliseConfig(**{**every, **names})).x


def choices(center=CENTERS, facing=FACINGS, scale=SCALES) -> st.SearchStrategy[dict[str, str]]:
    """Any of these ways to normalise."""
    every = {"center": center, "facing": facing, "scale": scale}
    return st.fixed_dictionaries({key: st.sampled_from(names) for key, names in every.items()})


def placed(
    clips: Clips, angle: tuple[float, ...] = (0, 0, 0), shift: Any = 0.0, factor: float = 1.0
) -> Clips:
    """The same motion, seen from elsewhere, of a larger body."""
    rotation = rotation_matrix(torch.tensor([angle], dtype=torch.float32))[0]
    x_nctvm = torch.einsum("cd,ndtvm->nctvm", rotation, clips.x) * factor
    x_nctvm = x_nctvm + torch.as_tensor(shift, dtype=torch.float32).reshape(-1, 1, 1, 1)
    return clips.with_x(torch.where(body_mask(clips.x), x_nctvm, 0.0))


def close(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, atol=2e-3)


@given(seeds, layouts, choices(center=CENTERS[1:]), st.tuples(*[st.floats(-5, 5)] * 3))
@settings(max_examples=50, deadline=None)
def test_centred_clips_do_not_tell_where_they_are(seed, layout, names, shift):
    clips = moving(layout, seed=seed)
    assert close(prepared(clips, layout, **names), prepared(placed(clips, shift=shift), layout, **names))


@given(seeds, layouts, choices(facing=FACINGS[1:]), angles)
@settings(max_examples=50, deadline=None)
def test_facing_clips_do_not_tell_their_yaw(seed, layout, names, yaw):
    clips = moving(layout, seed=seed)
    turned = placed(clips, angle=(0, yaw, 0))
    assert close(prepared(clips, layout, **names), prepared(turned, layout, **names))


@given(seeds, layouts, choices(facing=("body",)), st.tuples(angles, angles, angles))
@settings(max_examples=50, deadline=None)
def test_upright_clips_do_not_tell_any_rotation(seed, layout, names, angle):
    clips = moving(layout, seed=seed)
    turned = placed(clips, angle=angle)
    assert close(prepared(clips, layout, **names), prepared(turned, layout, **names))


@given(seeds, layouts, choices(scale=SCALES[1:]), st.floats(0.3, 3))
@settings(max_examples=50, deadline=None)
def test_scaled_clips_do_not_tell_their_size(seed, layout, names, factor):
    clips = moving(layout, seed=seed)
    larger = placed(clips, factor=factor)
    assert close(prepared(clips, layout, **names), prepared(larger, layout, **names))


@given(seeds, layouts, choices())
@settings(max_examples=50, deadline=None)
def test_whoever_is_absent_stays_absent(seed, layout, names):
    clips = moving(layout, seed=seed)
    x_nctvm = prepared(clips, layout, **names)
    assert torch.equal(body_mask(x_nctvm), body_mask(clips.x))
    assert torch.isfinite(x_nctvm).all()


@given(seeds, layouts)
@settings(max_examples=30, deadline=None)
def test_the_first_pose_stands_as_it_was_before_it_was_turned(seed, layout):
    clips = moving(layout, bodies=2, seed=seed)
    x_nctvm = prepared(clips, layout, center="first_frame", facing="body")
    assert close(x_nctvm[:, :, 0, :, 0], standing(layout, 2 * len(clips), seed)[::2])
    hips = [layout.index(joint) for joint in (layout.facing.left_hip, layout.facing.right_hip)]
    assert (x_nctvm[:, 0, 0, hips[0], 0] < x_nctvm[:, 0, 0, hips[1], 0]).all()


@given(seeds, layouts)
@settings(max_examples=30, deadline=None)
def test_yaw_turns_about_the_vertical_alone(seed, layout):
    clips = moving(layout, seed=seed)
    x_nctvm = prepared(clips, layout, facing="yaw")
    assert close(x_nctvm[:, 1], clips.x[:, 1])
    facing, pose = layout.facing, x_nctvm[:, :, 0, :, 0]
    right = sum(
        mean_of(pose, layout, r) - mean_of(pose, layout, left)
        for left, r in ((facing.left_hip, facing.right_hip), (facing.left_shoulder, facing.right_shoulder))
    )
    assert (right[:, 0] > 0).all()
    assert close(right[:, 2], torch.zeros(len(clips)))


@given(seeds, layouts, st.sampled_from(FACINGS))
@settings(max_examples=30, deadline=None)
def test_each_frame_has_the_leading_root_at_the_origin(seed, layout, facing):
    clips = moving(layout, seed=seed)
    x_nctvm = prepared(clips, layout, center="each_frame", facing=facing)
    root = mean_of(x_nctvm, layout, layout.center or layout.root, dim=3)
    for n, t in body_mask(clips.x)[:, 0, :, 0].any(dim=2).nonzero().tolist():
        leader = int(body_mask(clips.x)[n, 0, t, 0].nonzero()[0])
        assert close(root[n, :, t, leader], torch.zeros(3))


@given(seeds, layouts)
@settings(max_examples=30, deadline=None)
def test_minmax_fills_the_range(seed, layout):
    clips = moving(layout, seed=seed)
    x_nctvm = prepared(clips, layout, scale="minmax")
    over = (2, 3, 4)
    assert close(x_nctvm.amin(over), -torch.ones(len(clips), 3))
    assert close(x_nctvm.amax(over), torch.ones(len(clips), 3))


def test_minmax_of_a_flat_coordinate_is_zero():
    layout, clips = load_layout("kinect_v1_20"), moving()
    clips.x[:, 2] = torch.where(body_mask(clips.x)[:, 0], 2.5, 0.0)
    x_nctvm = prepared(clips, layout, scale="minmax")
    assert not x_nctvm[:, 2].any()
    assert x_nctvm[:, :2].amax() == 1


@pytest.mark.parametrize("name", layout_names())
def test_torso_makes_the_spine_of_unit_length(name):
    layout = load_layout(name)
    pose_ncv = prepared(moving(layout), layout, scale="torso")[:, :, 0, :, 0]
    ends = (mean_of(pose_ncv, layout, end) for end in (layout.facing.upper_spine, layout.facing.lower_spine))
    assert close(torch.sub(*ends).norm(dim=1), torch.ones(3))


@given(seeds, choices())
@settings(max_examples=20, deadline=None)
def test_further_coordinates_stay_as_they_are(seed, names):
    layout, clips = load_layout("kinect_v1_20"), moving(seed=seed)
    sure = torch.rand(clips.x[:, :2].shape) * body_mask(clips.x)
    more = clips.with_x(torch.cat([clips.x, sure], dim=1))
    assert torch.equal(
        prepared(more, layout, **names), torch.cat([prepared(clips, layout, **names), sure], 1)
    )
    assert torch.equal(with_space(more.x, clips.x), more.x)


def test_a_body_known_by_its_confidence_alone_is_seen():
    """It stands at the origin, so it leads from its first frame on, and goes where the origin goes."""
    layout, clips = load_layout("kinect_v1_20"), moving(bodies=1)
    sure = torch.ones_like(clips.x[:, :1])
    clips.x[:, :, 0] = 0
    more = clips.with_x(torch.cat([clips.x, sure], dim=1))
    found = prepared(more, layout, center="first_frame")
    assert torch.equal(found, more.x)
    assert not torch.equal(prepared(clips, layout, center="first_frame"), clips.x)


@pytest.mark.parametrize("center", ["first_frame", "each_frame"])
def test_a_joint_that_is_missing_does_not_pull_the_mean(center):
    layout, clips = load_layout("coco_17"), moving(load_layout("coco_17"), bodies=1)
    left, right = layout.indices(layout.center)
    clips.x[:, :, :, left] = 0
    found = prepared(clips, layout, center=center)
    assert not found[:, :, 0, right].any()
    clips.x[:, :, :, right] = 0
    assert torch.equal(prepared(clips, layout, center=center), clips.x)


@given(seeds, choices())
@settings(max_examples=20, deadline=None)
def test_a_missing_joint_stays_missing(seed, names):
    layout, clips = load_layout("openpose_25"), moving(load_layout("openpose_25"), seed=seed)
    ear = layout.index("left_ear")
    whole = prepared(clips, layout, **names)
    clips.x[:, :, :, ear] = 0
    found = prepared(clips, layout, (clips.x != 0).any(dim=1, keepdim=True), **names)
    assert not found[:, :, :, ear].any()
    if names["scale"] != "minmax":
        others = [place for place in range(len(layout.joints)) if place != ear]
        assert torch.equal(found[:, :, :, others], whole[:, :, :, others])


def test_a_layout_that_does_not_say_where_it_looks_can_only_be_centred():
    layout = load_layout("kinect_v1_20").model_copy(update={"facing": None})
    plain = {"center": "each_frame", "facing": "none", "scale": "minmax"}
    check_normalise(layout, NormaliseConfig(**plain))
    assert prepared(moving(), layout, **plain).any()
    for key, value in (("facing", "yaw"), ("facing", "body"), ("scale", "torso")):
        config = NormaliseConfig(**{**plain, key: value})
        for refused in (check_normalise, lambda body, how: normalise(moving(), body, how)):
            with pytest.raises(
                UserError, match=f"data.normalise.{key}: the layout kinect_v1_20 does not say"
            ):
                refused(layout, config)


def test_by_default_only_place_and_facing_are_taken_out():
    assert NormaliseConfig().to_tree() == {"center": "first_frame", "facing": "body", "scale": "none"}
    assert isinstance(NormaliseConfig(), Config)
    layout, clips = load_layout("kinect_v1_20"), moving()
    assert torch.equal(prepared(clips, layout), clips.x)


@given(seeds, layouts, st.booleans())
@settings(max_examples=50, deadline=None)
def test_facing_is_a_rotation(seed, layout, upright):
    pose_ncv = torch.randn(8, 3, len(layout.joints), generator=torch.Generator().manual_seed(seed))
    rotation_ncd = facing_rotation(pose_ncv, layout, upright=upright)
    assert close(rotation_ncd @ rotation_ncd.mT, torch.eye(3).expand(8, 3, 3))
    assert close(torch.linalg.det(rotation_ncd), torch.ones(8))


def degenerate(kind: str, layout) -> Tensor:
    pose_ncv = standing(layout, 1, 0)
    facing = layout.facing
    if kind == "nobody":
        pose_ncv = torch.zeros_like(pose_ncv)
    elif kind == "one point":
        pose_ncv = torch.ones_like(pose_ncv)
    elif kind == "no spine":
        lower = mean_of(pose_ncv, layout, facing.lower_spine)
        pose_ncv[:, :, layout.indices(facing.upper_spine)] = lower[:, :, None]
    else:  # hips and shoulders lie along the spine
        for joint in (facing.left_hip, facing.right_hip, facing.left_shoulder, facing.right_shoulder):
            side = 1.0 if "right" in joint else -1.0
            pose_ncv[:, :, layout.index(joint)] = side * torch.tensor([0.0, 0.3, 0.0])
    return pose_ncv


@pytest.mark.parametrize("layout", [load_layout(name) for name in layout_names()], ids=layout_names())
@pytest.mark.parametrize("kind", ["nobody", "one point", "no spine", "hips along the spine"])
def test_a_pose_that_faces_nowhere_is_left_alone(kind, layout):
    pose_ncv = degenerate(kind, layout)
    assert torch.equal(facing_rotation(pose_ncv, layout, upright=True), torch.eye(3)[None])
    x_nctvm = pose_ncv[:, :, None, :, None].expand(-1, -1, 4, -1, 2).clone()
    clips = Clips(x_nctvm, torch.tensor([3]), torch.tensor([0]), torch.tensor([0]))
    for center, facing, scale in itertools.product(CENTERS, FACINGS, SCALES):
        found = prepared(clips, layout, center=center, facing=facing, scale=scale)
        assert torch.isfinite(found).all()


def test_a_second_body_alone_is_no_trouble():
    layout, clips = load_layout("kinect_v1_20"), moving(seed=3)
    clips.x[..., 0] = 0
    for scale in SCALES:
        found = prepared(clips, layout, center="each_frame", facing="body", scale=scale)
        assert torch.isfinite(found).all()
        assert not found[..., 0].any()
        assert found[..., 1].any()


@given(seeds, layouts)
@settings(max_examples=30, deadline=None)
def test_the_first_body_that_is_seen_leads(seed, layout):
    alone, clips = moving(layout, bodies=1, seed=seed), moving(layout, bodies=2, seed=seed)
    clips = Clips(torch.cat([torch.zeros_like(alone.x), alone.x], 4), alone.lengths, clips.index, clips.label)
    for center, facing in itertools.product(CENTERS[1:], FACINGS[1:]):
        names = {"center": center, "facing": facing, "scale": "torso"}
        found = prepared(clips, layout, **names)
        assert not found[..., 0].any()
        assert torch.equal(found[..., 1], prepared(alone, layout, **names)[..., 0])
    pose = prepared(clips, layout, center="first_frame", facing="body", scale="torso")[:, :, 0, :, 1]
    assert close(
        pose, standing(layout, len(clips), seed) / 0.5
    )  # centred, turned, with a spine of unit length


def test_a_body_that_comes_later_does_not_lead():
    layout = load_layout("kinect_v1_20")
    clips = moving(layout, bodies=2, seed=5)
    clips.x[:, :, 0, :, 1] = moving(layout, bodies=2, seed=6).x[:, :, 0, :, 0]
    both = prepared(clips, layout, center="first_frame", facing="body", scale="torso")
    late = clips.x.clone()
    late[:, :, 0, :, 0] = 0  # now body 1 is the first to be seen
    found = prepared(clips.with_x(late), layout, center="first_frame", facing="body", scale="torso")
    swapped = prepared(clips.with_x(late.flip(4)), layout, center="first_frame", facing="body", scale="torso")
    assert torch.equal(found, swapped.flip(4))
    assert not close(found, both)
    root = layout.index(layout.root)
    assert close(found[:, :, 0, root, 1], torch.zeros(len(clips), 3))
    assert close(both[:, :, 0, root, 0], torch.zeros(len(clips), 3))
