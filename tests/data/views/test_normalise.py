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
    found = prepared(*hidden(clips, layout, "left_hip"), center=center)
    assert not found[:, :, 0, right].any()
    assert not found[:, :, :, left].any()


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


def hidden(clips: Clips, layout: Layout, *joints: str, frame: int | None = None) -> tuple[Any, ...]:
    """The clips without these joints, in one frame or in all; the layout; and what is there then."""
    x_nctvm = clips.x.clone()
    rows = slice(None) if frame is None else slice(frame, frame + 1)
    for joint in joints:
        x_nctvm[:, :, rows, layout.index(joint)] = 0
    return clips.with_x(x_nctvm), layout, (x_nctvm != 0).any(dim=1, keepdim=True)


def whole(clips: int = 3, seed: int = 0) -> Clips:
    """Clips of one body that is seen in all of eight frames."""
    start = moving(clips=clips, bodies=1, seed=seed)
    step = 0.02 * torch.randn(clips, 3, 8, 20, 1, generator=torch.Generator().manual_seed(seed))
    step[:, :, 0] = 0
    lengths = torch.full((clips,), 8)
    return Clips(start.x[:, :, :1] + step.cumsum(2), lengths, start.index, start.label)


def plain_spot(x_vc: Tensor, layout: Layout, spot: Spot) -> Tensor | None:
    there = [x_vc[place] for place in layout.indices(spot) if x_vc[place].any()]
    return torch.stack(there).mean(0) if there else None


def plain_asked(layout: Layout, center: str, facing: str, scale: str) -> set[int]:
    """The joints that these ways are measured on."""
    spots = [] if center == "none" else [layout.center or layout.root]
    told = dict(layout.facing)
    spots += [spot for name, spot in told.items() if facing != "none" and "spine" not in name]
    spots += [spot for name, spot in told.items() if facing == "body" or scale == "torso" if "spine" in name]
    return {place for spot in spots for place in layout.indices(spot)}


def plain_pose(x_tvmc: Tensor, asked: set[int]) -> Tensor:
    """The leading body (V, C) in the first frame that shows most of the joints asked for."""
    leader = next(m for x_vmc in x_tvmc for m in range(x_tvmc.shape[2]) if x_vmc[:, m].any())
    poses = [x_vmc[:, leader] for x_vmc in x_tvmc if x_vmc[:, leader].any()]
    return max(poses, key=lambda pose: sum(bool(pose[place].any()) for place in asked))


def plain_center(pose_vc: Tensor, layout: Layout) -> Tensor:
    center = plain_spot(pose_vc, layout, layout.center or layout.root)
    return pose_vc[pose_vc.any(dim=1)].mean(0) if center is None else center


def plain_centers(x_tvmc: Tensor, layout: Layout, instead: Tensor) -> Tensor:
    """The centre of every frame (T, C), of whoever leads it."""
    found = []
    for x_vmc in x_tvmc:
        bodies = [x_vmc[:, m] for m in range(x_vmc.shape[1]) if x_vmc[:, m].any()]
        found.append(plain_spot(bodies[0], layout, layout.center or layout.root) if bodies else None)
    rows = []
    for t in range(len(found)):
        near = [*reversed(found[: t + 1]), *found[t + 1 :]]
        rows.append(next((center for center in near if center is not None), instead))
    return torch.stack(rows)


def plain_torso(pose_vc: Tensor, layout: Layout) -> float:
    facing = layout.facing
    for factor, one, two in (
        (1.0, facing.lower_spine, facing.upper_spine),
        (1.5, facing.left_shoulder, facing.right_shoulder),
    ):
        ends = [plain_spot(pose_vc, layout, spot) for spot in (one, two)]
        if all(end is not None for end in ends):
            return factor * float((ends[1] - ends[0]).norm())
    return 1.0


@given(seeds, layouts, st.floats(0, 0.9), choices(center=CENTERS[1:], facing=FACINGS[:1], scale=SCALES[:2]))
@settings(max_examples=100, deadline=None)
def test_missing_joints_are_no_points(seed, layout, share, names):
    """Place and size against plain loops over what is there, for clips with any joints missing."""
    clips = moving(layout, seed=seed)
    kept = torch.rand(clips.x[:, :1].shape, generator=torch.Generator().manual_seed(seed)) >= share
    clips = clips.with_x(clips.x * kept)
    there = (clips.x != 0).any(dim=1, keepdim=True)
    found = prepared(clips, layout, there, **names)
    for n, x_tvmc in enumerate(clips.x.permute(0, 2, 3, 4, 1)):
        if not x_tvmc.any():
            assert not found[n].any()
            continue
        pose_vc = plain_pose(x_tvmc, plain_asked(layout, **names))
        origin = plain_center(pose_vc, layout).expand(len(x_tvmc), 3)
        if names["center"] == "each_frame":
            origin = plain_centers(x_tvmc, layout, origin[0])
        wanted = x_tvmc - origin[:, None, None]
        if names["scale"] == "torso":
            wanted = wanted / plain_torso(pose_vc, layout)
        torch.testing.assert_close(
            found[n].permute(1, 2, 3, 0), wanted * there[n].permute(1, 2, 3, 0), atol=1e-3, rtol=1e-3
        )


SIDES = ("left_shoulder", "right_shoulder", "left_hip", "right_hip")


@pytest.mark.parametrize("facing", FACINGS[1:])
@pytest.mark.parametrize("lost", [*((side,) for side in SIDES), SIDES[:2], SIDES[2:], SIDES[1:3]])
def test_a_hip_that_is_missing_does_not_turn_the_body(lost, facing):
    """One pair alone tells where the body looks; both are parallel in the pose that all clips begin with."""
    layout = load_layout("kinect_v1_20")
    clips = whole()
    found = prepared(*hidden(clips, layout, *lost), facing=facing)
    if lost == SIDES[1:3]:  # nothing of both pairs is complete
        assert torch.equal(found, hidden(clips, layout, *lost)[0].x)
        return
    there = hidden(prepared_as(clips, layout, facing), layout, *lost)[0].x
    if facing == "body":
        assert close(found[:, :, 0], there[:, :, 0])
    else:
        pair = SIDES[:2] if {*lost} & {*SIDES[2:]} else SIDES[2:]
        left, right = (layout.index(joint) for joint in pair)
        assert close(found[:, 1], there[:, 1])
        arrow = (found[:, :, 0, right] - found[:, :, 0, left])[..., 0]
        assert close(arrow[:, 2], torch.zeros(len(clips)))
        assert (arrow[:, 0] >= 0).all()


def prepared_as(clips: Clips, layout: Layout, facing: str) -> Clips:
    return clips.with_x(prepared(clips, layout, facing=facing))


@pytest.mark.parametrize("end", ["hip_center", "shoulder_center"])
def test_without_a_spine_only_the_yaw_is_taken_out(end):
    layout = load_layout("kinect_v1_20")
    lost = hidden(whole(), layout, end)
    assert torch.equal(prepared(*lost, facing="body"), prepared(*lost, facing="yaw"))
    assert not torch.equal(prepared(*lost, facing="yaw"), lost[0].x)


@pytest.mark.parametrize(
    ("names", "joint", "waits"),
    [
        ({"center": "first_frame"}, "hip_center", True),
        ({"center": "first_frame"}, "left_shoulder", False),
        ({"facing": "yaw"}, "left_shoulder", True),
        ({"facing": "yaw"}, "shoulder_center", False),
        ({"facing": "body"}, "shoulder_center", True),
        ({"scale": "torso"}, "shoulder_center", True),
        ({"scale": "torso"}, "left_hip", False),
        ({"center": "first_frame", "facing": "body"}, "left_hip", True),
    ],
)
def test_the_reference_frame_waits_for_what_is_asked_for_alone(names, joint, waits):
    """A clip whose first frame lacks the joint is seen as if it began a frame later, or it is not."""
    layout = load_layout("kinect_v1_20")
    clips, _, there = hidden(whole(), layout, joint, frame=0)
    found = prepared(clips, layout, there, **names)
    later = clips.with_x(clips.x[:, :, 1:])
    assert torch.equal(found[:, :, 1:], prepared(later, layout, there[:, :, 1:], **names)) is waits


def test_a_frame_without_the_root_has_that_of_a_frame_near_it():
    layout = load_layout("kinect_v1_20")
    root, head = layout.index("hip_center"), layout.index("head")
    clips = whole()
    clips.x[:, :, [0, 3, 4], root] = 0
    found = prepared(clips, layout, (clips.x != 0).any(1, keepdim=True), center="each_frame")
    for frame, taken in ((0, 1), (1, 1), (2, 2), (3, 2), (4, 2), (5, 5)):
        wanted = clips.x[:, :, frame, head] - clips.x[:, :, taken, root]
        assert torch.equal(found[:, :, frame, head], wanted)


def test_clips_in_a_plane_whose_hips_are_never_found_are_centred_and_scaled():
    layout = load_layout("coco_17")
    clips = moving(layout, bodies=1)
    clips.x[:, :2] += 300 * body_mask(clips.x)
    clips.x[:, 2] = 0
    clips, _, there = hidden(clips, layout, "left_hip", "right_hip")
    found = prepared(clips, layout, there, center="first_frame", scale="torso")
    seen_v = [place for place, name in enumerate(layout.joints) if "hip" not in name]
    assert close(found[:, :, 0, seen_v].mean(2), torch.zeros(len(clips), 3, 1))
    left, right = (layout.index(f"{side}_shoulder") for side in ("left", "right"))
    width = (found[:, :, 0, left] - found[:, :, 0, right]).norm(dim=1)
    assert close(width, torch.full_like(width, 1 / 1.5))


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


def test_half_of_an_end_of_the_spine_is_none():
    layout = load_layout("coco_17")
    lost = hidden(moving(layout, bodies=1), layout, "left_hip")
    assert torch.equal(prepared(*lost, facing="body"), prepared(*lost, facing="yaw"))


def test_a_frame_in_which_nobody_is_seen_is_no_reference():
    layout = load_layout("kinect_v1_20")
    clips, _, there = hidden(whole(), layout, "hip_center")
    clips.x[:, :, 0], there[:, :, 0] = 0, False
    found = prepared(clips, layout, there, center="first_frame")
    others = [place for place, name in enumerate(layout.joints) if name != "hip_center"]
    assert close(found[:, :, 1, others].mean(2), torch.zeros(3, 3, 1))
