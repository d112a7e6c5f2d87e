import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import examples, moving, one_line, seeds, write_store
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Generator, Tensor

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import Facts, Recording, Track
from ssl_skeleton.data.store import open_store
from ssl_skeleton.data.views.agcn import agcn, check_agcn, shortest_turn
from ssl_skeleton.data.views.augment import (
    AugmentConfig,
    augment,
    draw_masks,
    draw_turn,
    draw_window,
    mask,
    rotation_matrix,
)
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.data.views.streams import streams
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout, layout_names, load_layout, names_of

NTU = load_layout("kinect_v2_25")
BASE, MIDDLE, LEFT, RIGHT = 0, 1, 4, 8  # NTU's joints 1, 2, 5 and 9
# What is special about the spine and the shoulders of a clip: arrows, or nothing where they are any.
KINDS = {
    "any": (None, None),
    "spine aligned": ((0, 0, 0.5), None),
    "spine opposite": ((0, 0, -0.5), None),
    "no spine": ((0, 0, 0), None),
    "no shoulders": (None, (0, 0, 0)),
    "shoulders aligned": ((0, 0, 0.5), (0.75, 0, 0)),
    "shoulders opposite": ((0, 0, 0.25), (-0.75, 0, 0)),
    "both opposite": ((0, 0, -0.5), (-0.75, 0, 0)),
    "shoulders along the spine": ((0, 0, 0.5), (0, 0, 0.5)),
    "nothing": ((0, 0, 0), (0, 0, 0)),
}
eighths = st.integers(0, 8).map(lambda number: number / 8)  # so that nothing is rounded in float32
windows = st.none() | st.lists(st.tuples(eighths, eighths), min_size=3, max_size=3)


@st.composite
def bodies(draw: st.DrawFn, frames: int, kind: str) -> Track:
    """One body that comes at any time, is not seen in some frames, lacks some joints."""
    rng = np.random.default_rng(draw(seeds))
    first = draw(st.integers(0, frames - 1))
    shown = draw(st.lists(st.booleans(), min_size=1, max_size=frames - first))
    # Multiples of 1/64: differences of them are exact.
    x_tvc = np.round(rng.normal([0, 1, 3], draw(st.sampled_from([0.3, 1.0])), (len(shown), 25, 3)) * 64) / 64
    spine, shoulders = KINDS[kind]
    if spine is not None:
        x_tvc[:, MIDDLE] = x_tvc[:, BASE] + spine
    if shoulders is not None:
        x_tvc[:, RIGHT] = x_tvc[:, LEFT] + shoulders
    x_tvc[rng.random(x_tvc.shape[:2]) < draw(st.sampled_from([0, 0, 0.05, 0.5]))] = 0
    x_tvc[~np.array(shown)] = 0
    return Track(first, x_tvc.astype(np.float32))


@st.composite
def recordings(draw: st.DrawFn) -> list[Recording]:
    clips = []
    for name in range(draw(st.integers(1, 3))):
        frames, kind = draw(st.integers(1, 9)), draw(st.sampled_from(list(KINDS)))
        tracks = draw(st.lists(bodies(frames, kind), min_size=1, max_size=4))
        clips.append(Recording(str(name), frames, tracks))
    # A root at zero in all of a store would be one that the recordings are relative to.
    assume(any(track.x_tvc[:, BASE].any() for clip in clips for track in clip.tracks))
    return clips


def packed_of(
    clips: Sequence[Recording], people: int, layout: Layout = NTU, target: Layout | None = None
) -> PackedClips:
    with tempfile.TemporaryDirectory() as folder:
        facts = Facts("made_up", layout, 30.0)
        write_store(Path(folder) / "store", clips, bodies=4, facts=facts)
        return PackedClips(open_store(Path(folder) / "store"), people, layout=target, order="moving")


def plain_motion(track: Track) -> float:
    points = track.x_tvc.astype(np.float64).reshape(-1, 3)
    points = points[points.any(axis=1)]
    return float(points.std(axis=0).sum()) if len(points) else 0.0


def plain_window(length: int, window: tuple[float, float] | None) -> tuple[int, int]:
    """The first frame and the number of frames of a window."""
    start, share = window or (0.0, 1.0)
    span = round(min(max(share * length - 1, 0), length - 1))
    return round(start * (length - 1 - span)), span + 1


def plain_loop(clip: Recording, people: int, frames: int, window: tuple[float, float] | None) -> np.ndarray:
    """The strongest bodies from their first frame on, over and over: (M, T, V, 3) in float64."""
    first, length = plain_window(clip.frames, window)
    strongest = sorted(clip.tracks, key=lambda track: -plain_motion(track))[:people]
    x_mtvc = np.zeros((people, frames, 25, 3))
    for m, track in enumerate(strongest):
        dense = np.zeros((clip.frames, 25, 3))
        dense[track.first_frame : track.first_frame + len(track.x_tvc)] = track.x_tvc
        own = list(dense[first : first + length])
        if not own[0].any():
            own = [pose for pose in own if pose.any()]
        while own and not own[-1].any():
            own.pop()
        for t in range(frames if own else 0):
            x_mtvc[m, t] = own[t % len(own)]
    return x_mtvc


def plain_turn(arrow: np.ndarray, onto: int, half_about: int) -> np.ndarray:
    """The shortest rotation, by its axis and angle."""
    length = np.linalg.norm(arrow)
    if length == 0:
        return np.eye(3)
    axis = np.cross(arrow / length, np.eye(3)[onto])
    sine, cosine = np.linalg.norm(axis), arrow[onto] / length
    if sine < 1e-9:
        return np.eye(3) if cosine > 0 else Rotation.from_rotvec(np.pi * np.eye(3)[half_about]).as_matrix()
    assume(length > 0.1 and (cosine > 0 or sine > 0.05))  # else rounding decides
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_matrix()


def plain_arrow(pose: np.ndarray, start: int, end: int) -> np.ndarray:
    return pose[end] - pose[start] if pose[start].any() and pose[end].any() else np.zeros(3)


def plain_agcn(x_mtvc: np.ndarray) -> np.ndarray:
    """Centred and turned, in loops over bodies, frames and joints."""
    out = x_mtvc.copy()
    for m, t, v in np.ndindex(x_mtvc.shape[:3]):
        if x_mtvc[m, t, v].any():
            out[m, t, v] = x_mtvc[m, t, v] - x_mtvc[0, t, MIDDLE]
    first = x_mtvc[0, 0]
    for start, end, onto, half_about in ((BASE, MIDDLE, 2, 0), (LEFT, RIGHT, 0, 2)):
        turn = plain_turn(plain_arrow(first, start, end), onto, half_about)
        for m, t, v in np.ndindex(x_mtvc.shape[:3]):
            out[m, t, v] = turn @ out[m, t, v]
        first = np.array([turn @ joint for joint in first])
    return out


@given(recordings(), st.integers(1, 3), st.integers(1, 14), windows)
@settings(max_examples=examples(70), deadline=None)
def test_it_agrees_with_a_plain_reference(clips, people, frames, window):
    packed = packed_of(clips, people)
    drawn = None if window is None else torch.tensor(window[: len(clips)])
    index = torch.arange(len(clips)).flip(0)
    looped = packed.loop(index, frames, drawn)
    found = agcn(looped, NTU)
    assert found.lengths.tolist() == [frames] * len(clips)
    assert found.index.tolist() == index.tolist()
    assert found.x.dtype == torch.float32
    for n, clip in enumerate(reversed(clips)):
        wanted = plain_loop(clip, people, frames, window and window[n])
        np.testing.assert_array_equal(looped.x[n].permute(3, 1, 2, 0), wanted)
        seen = wanted.any(axis=3)
        np.testing.assert_array_equal(looped.seen[n, 0].permute(2, 0, 1).expand(seen.shape), seen)
        np.testing.assert_allclose(found.x[n].permute(3, 1, 2, 0), plain_agcn(wanted), atol=1e-4)


@given(recordings(), windows)
@settings(max_examples=15, deadline=None)
def test_a_clip_does_not_depend_on_the_others(clips, window):
    packed = packed_of(clips, 2)
    drawn = None if window is None else torch.tensor(window[: len(clips)])
    together = agcn(packed.loop(torch.arange(len(clips)), 11, drawn), NTU)
    for n in range(len(clips)):
        alone = agcn(packed.loop(torch.tensor([n]), 11, None if drawn is None else drawn[n : n + 1]), NTU)
        torch.testing.assert_close(alone.x[0], together.x[n], atol=1e-5, rtol=0)


def walk(frames: int, *gaps: int, seed: int = 0) -> np.ndarray:
    x_tvc = np.random.default_rng(seed).normal(size=(frames, 25, 3)).astype(np.float32)
    x_tvc[list(gaps)] = 0
    return x_tvc


@pytest.mark.parametrize(
    ("first", "gaps", "order"),
    [
        (0, (), [0, 1, 2, 3, 0, 1, 2, 3]),
        (0, (1,), [0, 1, 2, 3, 0, 1, 2, 3]),  # frame 1 shows nobody, and stays in its place
        (0, (3,), [0, 1, 2, 0, 1, 2, 0, 1]),
        (2, (), [0, 1, 2, 3, 0, 1, 2, 3]),
        (0, (0, 2), [1, 3, 1, 3, 1, 3, 1, 3]),
        (2, (1,), [0, 2, 3, 0, 2, 3, 0, 2]),
        (1, (0, 1, 2, 3), []),
    ],
)
def test_a_body_begins_at_once_and_again_when_it_ends(first, gaps, order):
    x_tvc = walk(4, *gaps)
    found = packed_of([Recording("a", 6, [Track(first, x_tvc)])], 1).loop(torch.tensor([0]), 8).x[0, ..., 0]
    wanted = x_tvc[order] if order else np.zeros((8, 25, 3))
    np.testing.assert_array_equal(found.permute(1, 2, 0), wanted)


def test_a_long_clip_is_cut():
    x_tvc = walk(400)
    packed = packed_of([Recording("a", 400, [Track(0, x_tvc)])], 1)
    np.testing.assert_array_equal(
        packed.loop(torch.tensor([0]), 300).x[0, ..., 0].permute(1, 2, 0), x_tvc[:300]
    )


@given(seeds, st.sampled_from([1e-5, 1e-3, 0.1, 1.0]), st.sampled_from([-1.0, 0.0, 1.0]), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_a_turn_is_the_shortest_rotation_onto_its_axis(seed, spread, along, onto):
    """Arrows anywhere, and almost along the axis, both ways."""
    arrow_nc = spread * torch.randn(16, 3, generator=Generator().manual_seed(seed))
    arrow_nc[:, onto] += along
    turn_ncd = shortest_turn(arrow_nc, onto, (onto + 1) % 3)
    eye = torch.eye(3)
    torch.testing.assert_close(turn_ncd @ turn_ncd.mT, eye.expand(16, 3, 3), atol=2e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turn_ncd), torch.ones(16), atol=2e-6, rtol=0)
    length_n = arrow_nc.norm(dim=1)
    turned_nc = (turn_ncd @ arrow_nc[:, :, None])[:, :, 0]
    torch.testing.assert_close(turned_nc, length_n[:, None] * eye[onto], atol=5e-6, rtol=0)
    cosine_n = arrow_nc[:, onto] / length_n
    trace_n = turn_ncd.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(trace_n, 1 + 2 * cosine_n, atol=1e-5, rtol=0)


@pytest.mark.parametrize("onto", [0, 1, 2])
def test_where_there_is_no_shortest_turn(onto):
    eye = torch.eye(3)
    for about in {0, 1, 2} - {onto}:
        rows = torch.stack([0 * eye[onto], 0.3 * eye[onto], 1e-7 * eye[about], -0.3 * eye[onto]])
        found = shortest_turn(rows, onto, about)
        assert torch.equal(found[:3], eye.expand(3, 3, 3))
        assert torch.equal(found[3], 2 * torch.outer(eye[about], eye[about]) - eye)


def people(layout: Layout, seed: int) -> Clips:
    """Clips of noise, two bodies, all joints seen in all frames."""
    generator = Generator().manual_seed(seed)
    x_nctvm = torch.randn(3, 3, 5, len(layout.joints), 2, generator=generator) + 2
    return Clips(x_nctvm, torch.full((3,), 5), torch.arange(3), torch.zeros(3, dtype=torch.int64))


def spot(x_nctv: Tensor, layout: Layout, *joints: str) -> Tensor:
    """The mean of joints on the last axis."""
    return x_nctv[..., [layout.index(joint) for joint in joints]].mean(-1)


@given(seeds, st.sampled_from(layout_names()).map(load_layout))
@settings(max_examples=40, deadline=None)
def test_shoulders_lie_along_x_whatever_the_layout(seed, layout):
    clips = people(layout, seed)
    found = agcn(clips, layout).x
    sides = (layout.facing.left_shoulder, layout.facing.right_shoulder)
    left, right = (spot(found[:, :, 0, :, 0], layout, *names_of(side)) for side in sides)
    across_nc = right - left
    assert (across_nc[:, 0] > 0).all()
    torch.testing.assert_close(across_nc[:, 1:], torch.zeros(3, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(distances(found), distances(clips.x), atol=1e-4, rtol=0)


def distances(x_nctvm: Tensor) -> Tensor:
    """Those between any two joints of a frame, of both bodies."""
    x_ntic = x_nctvm.permute(0, 2, 3, 4, 1).flatten(2, 3)
    return (x_ntic[:, :, :, None] - x_ntic[:, :, None]).norm(dim=4)


@pytest.mark.parametrize(
    ("layout", "middle"),
    [
        ("kinect_v2_25", ["mid_spine"]),
        ("kinect_v1_20", ["spine"]),
        ("openni_15", ["torso"]),
        ("mocap_31", ["lowerback", "upperback"]),
        ("mediapipe_33", ["left_shoulder", "right_shoulder", "left_hip", "right_hip"]),
        ("common_15", ["pelvis", "neck"]),
    ],
)
def test_the_middle_of_the_first_spine_is_the_origin_of_every_frame(layout, middle):
    layout = load_layout(layout)
    clips = people(layout, 0)
    torch.testing.assert_close(
        spot(agcn(clips, layout).x[..., 0], layout, *middle), torch.zeros(3, 3, 5), atol=1e-5, rtol=0
    )


def test_a_frame_with_half_a_middle_is_turned_where_it_is():
    layout = load_layout("mocap_31")
    clips = people(layout, 0)
    clips.x[:, :, 2, layout.index("upperback"), 0] = 0
    clips = replace(clips, mask=(clips.x != 0).any(dim=1, keepdim=True))
    far, recorded = (x_nctvm.norm(dim=1) for x_nctvm in (agcn(clips, layout).x, clips.x))
    torch.testing.assert_close(far[:, 2], recorded[:, 2], atol=1e-5, rtol=0)
    assert (far[:, [0, 1, 3, 4]].mean((2, 3)) < 0.9 * recorded[:, [0, 1, 3, 4]].mean((2, 3))).all()


def squared(seed: int) -> Clips:
    """Clips whose first body has its shoulders at a right angle to its lower spine in the first frame."""
    clips = moving(NTU, seed=seed)
    first = clips.x[:, :, 0, :, 0]
    spine = first[:, :, MIDDLE] - first[:, :, BASE]
    across = first[:, :, RIGHT] - first[:, :, LEFT]
    share = (across * spine).sum(1, keepdim=True) / (spine * spine).sum(1, keepdim=True)
    first[:, :, RIGHT] -= share * spine
    return clips


def elsewhere(clips: Clips, angles: tuple[float, ...], shift: tuple[float, ...]) -> Clips:
    """The same motion, seen from elsewhere."""
    turn = rotation_matrix(torch.tensor([angles]))[0]
    x_nctvm = torch.einsum("cd,ndtvm->nctvm", turn, clips.x) + torch.tensor(shift).view(1, 3, 1, 1, 1)
    return clips.with_x(torch.where(clips.seen, x_nctvm, 0.0))


def turns_well(clips: Clips) -> bool:
    """Whether neither turn is almost half a turn, or of almost nothing: there, rounding decides the way."""
    first = clips.x[:, :, 0, :, 0]
    spine = first[:, :, MIDDLE] - first[:, :, BASE]
    across = (shortest_turn(spine, 2, 0) @ (first[:, :, RIGHT] - first[:, :, LEFT])[:, :, None])[:, :, 0]
    return all(
        bool(((arrow[:, axis] / arrow.norm(dim=1) > -0.99) & (arrow.norm(dim=1) > 0.05)).all())
        for arrow, axis in ((spine, 2), (across, 0))
    )


angles = st.tuples(*[st.floats(-3, 3, width=32)] * 3)
places = st.tuples(*[st.floats(-5, 5, width=32)] * 3)


@given(seeds, places)
@settings(max_examples=40, deadline=None)
def test_a_clip_does_not_tell_where_it_was_recorded(seed, shift):
    """But in the frames without the first body, which are left where they are."""
    clips = moving(NTU, seed=seed)
    assume(turns_well(clips))
    there = clips.seen[..., :1]
    found, wanted = agcn(elsewhere(clips, (0, 0, 0), shift), NTU).x, agcn(clips, NTU).x
    torch.testing.assert_close(found * there, wanted * there, atol=1e-3, rtol=0)


@given(seeds, angles, places)
@settings(max_examples=60, deadline=None)
def test_a_body_with_square_shoulders_does_not_tell_how_the_camera_stood(seed, angle, shift):
    """Its spine is upright in the end too, and so the frame in which it begins is given by both arrows."""
    clips = squared(seed)
    turned = elsewhere(clips, angle, shift)
    assume(turns_well(clips) and turns_well(turned))
    there = clips.seen[..., :1]
    found, wanted = agcn(turned, NTU).x, agcn(clips, NTU).x
    torch.testing.assert_close(found * there, wanted * there, atol=2e-3, rtol=0)
    spine = (found[:, :, 0, MIDDLE] - found[:, :, 0, BASE])[..., 0]
    torch.testing.assert_close(spine[:, :2], torch.zeros(3, 2), atol=1e-4, rtol=0)
    assert (spine[:, 2] > 0).all()


@given(seeds, angles, places)
@settings(max_examples=60, deadline=None)
def test_how_the_camera_stood_is_only_told_by_a_turn_about_the_shoulders(seed, angle, shift):
    """Two shortest turns leave one angle about x open: x and the distance from that axis are the same."""
    clips = moving(NTU, seed=seed)
    turned = elsewhere(clips, angle, shift)
    assume(turns_well(clips) and turns_well(turned))
    there = clips.seen[..., :1]
    found, wanted = (agcn(part, NTU).x * there for part in (turned, clips))
    torch.testing.assert_close(found[:, 0], wanted[:, 0], atol=2e-3, rtol=0)
    torch.testing.assert_close(found[:, 1:].norm(dim=1), wanted[:, 1:].norm(dim=1), atol=2e-3, rtol=0)


def test_a_root_that_is_zero_throughout_is_a_joint():
    """Recordings that are relative to their root have it at the origin, where it is seen."""
    x_tvc = walk(3)
    x_tvc[:, NTU.index(NTU.root)] = 0
    clips = packed_of([Recording("a", 3, [Track(0, x_tvc)])], 1).loop(torch.tensor([0]), 5)
    moved = elsewhere(clips, (0, 0, 0), (1, 2, 3))
    torch.testing.assert_close(agcn(clips, NTU).x, agcn(moved, NTU).x, atol=1e-4, rtol=0)


def test_a_confidence_stays_as_it_is():
    clips = people(NTU, 0)
    sure = torch.rand(3, 1, 5, 25, 2)
    found = agcn(clips.with_x(torch.cat([clips.x, sure], dim=1)), NTU).x
    assert torch.equal(found[:, 3:], sure)
    assert torch.equal(found[:, :3], agcn(clips, NTU).x)


def test_a_layout_that_does_not_tell_spine_and_shoulders_is_refused():
    layout = NTU.model_copy(update={"name": "stick", "facing": None})
    for refused in (lambda: check_agcn(layout), lambda: agcn(people(NTU, 0), layout)):
        with pytest.raises(UserError, match=r"data\.normalise: agcn turns bodies") as error:
            refused()
        assert "the layout stick does not say where" in one_line(error.value)


SAMPLING = SamplingConfig(frames=12, bodies=2, normalise="agcn")
INDEX = torch.tensor([1, 0, 1])


@pytest.fixture(scope="module")
def packed() -> PackedClips:
    clips = [Recording(str(n), 9, [Track(n, walk(8, seed=n)), Track(0, 2 * walk(6, seed=9))]) for n in (0, 1)]
    return packed_of(clips, 2)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_a_view_crops_then_loops_then_normalises_then_augments(packed, seed):
    change = AugmentConfig(crop=0.4, rotate=(10, 30, 10), flip=0.5, noise=0.01, mask_joints=0.2)
    names = ("joint", "bone", "motion")
    draws, again = (Draws(Generator().manual_seed(seed), len(INDEX)) for _ in range(2))
    found = make_view(packed, INDEX, SAMPLING, ViewConfig(streams=names, augment=change), draws)
    window, turn_ncd = draw_window(change, again), draw_turn(change, again)
    clips = agcn(packed.loop(INDEX, 12, window), NTU, turn_ncd)
    clips = streams(augment(clips, NTU, change, again), NTU, names)
    assert torch.equal(found.x, mask(clips, draw_masks(12, len(NTU.joints), change, again)).x)
    assert found.lengths.tolist() == [12] * 3


def test_a_view_may_be_resampled_instead(packed):
    found = make_view(packed, INDEX, SAMPLING, ViewConfig(), None, resample=5)
    assert torch.equal(found.x, agcn(packed.gather(INDEX, 5), NTU).x)
    assert found.x.shape[2] == 5


def test_bodies_in_another_order_are_refused(packed):
    with pytest.raises(ValueError, match="PackedClips has its bodies moving, not stored"):
        make_view(packed, INDEX, SamplingConfig(bodies=2), ViewConfig(), None)
