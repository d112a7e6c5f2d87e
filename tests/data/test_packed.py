import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import LAYOUT, recordings, seeds, stored, without_joints, write_store
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.clips import body_mask, frame_mask
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import IMAGE, Facts, Recording, Track
from ssl_skeleton.data.repair import RepairConfig, repair
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.data.views.streams import streams
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import load_layout
from ssl_skeleton.skeleton.remap import remap, remap_matrix

shares = st.floats(0, 1, width=32)
windows = st.none() | st.lists(st.tuples(shares, shares), min_size=5, max_size=5)


def drawn_window(length: int, window: tuple[float, float] | None) -> tuple[float, float]:
    """First frame and last-minus-first frame of the part to take."""
    start, share = window or (0.0, 1.0)
    span = min(max(share * length - 1, 0), length - 1)
    return start * (length - 1 - span), span


def near_half(value: float) -> bool:
    """Where rounding in float32 decides which of two frames is the nearer."""
    return abs(value - math.floor(value) - 0.5) < 1e-4


def plain_frame(track: Track, position: float) -> np.ndarray:
    """One body (V, C) at a fractional frame, in float64: straight lines between the frames that show it."""
    last = len(track.x_tvc) - 1
    local = position - track.first_frame
    if not -0.5 < local < last + 0.5:
        return np.zeros(track.x_tvc.shape[1:])
    local = min(max(local, 0.0), float(last))
    before, share = math.floor(local), local - math.floor(local)
    x_tvc = track.x_tvc.astype(np.float64)
    one, two = x_tvc[before], x_tvc[min(before + 1, last)]
    rows = [plain_joint(*pair, share) for pair in zip(one, two, strict=True)]
    return np.stack(rows)


def plain_joint(one: np.ndarray, two: np.ndarray, share: float) -> np.ndarray:
    """One joint (C,) between two frames; where one of them does not show it, the nearer one decides."""
    nearer = one if share <= 0.5 else two
    if not nearer.any() or not one.any() or not two.any():
        return nearer
    return (1 - share) * one + share * two


def check_clip(x_ctvm: np.ndarray, clip: Recording, positions: list[float]) -> None:
    for t, position in enumerate(positions):
        for m in range(x_ctvm.shape[3]):
            if m >= len(clip.tracks):
                assert not x_ctvm[:, t, :, m].any()
            elif not near_half(position):
                wanted = plain_frame(clip.tracks[m], position)
                np.testing.assert_allclose(x_ctvm[:, t, :, m].T, wanted, atol=1e-4)


@given(recordings(most_clips=3), st.integers(1, 3), st.integers(1, 12), windows, st.none() | seeds)
@settings(max_examples=60, deadline=None)
def test_resampling_agrees_with_a_plain_reference(clips, bodies, frames, window, holes):
    window = window and window[: len(clips)]
    clips = clips if holes is None else without_joints(clips, holes)
    with stored(clips) as store:
        packed = PackedClips(store, bodies)
    index = torch.arange(len(clips)).flip(0)
    batch = packed.gather(index, frames, torch.tensor(window) if window else None)
    assert batch.x.dtype == torch.float32
    assert batch.lengths.tolist() == [frames] * len(clips)
    assert batch.index.tolist() == index.tolist()
    assert batch.label.tolist() == [clip.label for clip in reversed(clips)]
    for n, clip in enumerate(reversed(clips)):
        start, span = drawn_window(clip.frames, window[n] if window else None)
        steps = [t / (frames - 1) for t in range(frames)] if frames > 1 else [0.5]
        check_clip(batch.x[n].numpy(), clip, [start + span * step for step in steps])


@given(recordings(most_clips=3), st.integers(1, 3), windows)
@settings(max_examples=60, deadline=None)
def test_the_own_rate_gives_stored_frames(clips, bodies, window):
    """Whole clips are the stored frames to the bit; a window is a run of them inside the clip."""
    window = window and window[: len(clips)]
    with stored(clips) as store:
        packed = PackedClips(store, bodies)
    batch = packed.gather(torch.arange(len(clips)), None, torch.tensor(window) if window else None)
    assert batch.x.shape[2] == batch.lengths.max()
    assert not batch.x.permute(0, 2, 1, 3, 4)[~frame_mask(batch.lengths, batch.x.shape[2])].any()
    for n, clip in enumerate(clips):
        length = int(batch.lengths[n])
        start, span = drawn_window(clip.frames, window[n] if window else None)
        assert abs(length - (span + 1)) <= 0.5 + 1e-4
        whole_ctvm = dense(clip, bodies)
        runs = [whole_ctvm[:, first : first + length] for first in range(clip.frames - length + 1)]
        fitting = [
            first for first, run in enumerate(runs) if np.array_equal(run, batch.x[n, :, :length].numpy())
        ]
        assert any(abs(first - start) <= 1 for first in fitting)
        assert window or (length, fitting) == (clip.frames, [0])


def dense(clip: Recording, bodies: int) -> np.ndarray:
    """All frames of a clip (C, T, V, M)."""
    x_ctvm = np.zeros((3, clip.frames, clip.tracks[0].x_tvc.shape[1], bodies), np.float32)
    for m, track in enumerate(clip.tracks[:bodies]):
        frames = slice(track.first_frame, track.first_frame + len(track.x_tvc))
        x_ctvm[:, frames, :, m] = track.x_tvc.transpose(2, 0, 1)
    return x_ctvm


@given(recordings(most_clips=1), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_resampling_to_the_same_length_gives_the_stored_frames(clips, bodies):
    with stored(clips) as store:
        packed = PackedClips(store, bodies)
    batch = packed.gather(torch.tensor([0]), clips[0].frames)
    wanted = dense(clips[0], bodies)
    np.testing.assert_allclose(batch.x[0].numpy(), wanted, atol=1e-5)
    seen = (wanted != 0).any(axis=(0, 2), keepdims=True)
    np.testing.assert_array_equal(body_mask(batch.x)[0].numpy(), seen)


@given(recordings(most_clips=4), st.none() | st.integers(1, 9), windows)
@settings(max_examples=40, deadline=None)
def test_a_clip_does_not_depend_on_the_others(clips, frames, window):
    with stored(clips) as store:
        packed = PackedClips(store, bodies=2)
    window = torch.tensor(window[: len(clips)]) if window else None
    together = packed.gather(torch.arange(len(clips)), frames, window)
    for n in range(len(clips)):
        alone = packed.gather(torch.tensor([n]), frames, None if window is None else window[n : n + 1])
        length = int(alone.lengths[0])
        assert length == together.lengths[n]
        assert torch.equal(alone.x[0], together.x[n, :, :length])


@pytest.mark.parametrize("length", [2, 3, 5, 8])
def test_the_last_window_ends_with_the_clip(length):
    x_tvc = np.arange(1, length + 1, dtype=np.float32)[:, None, None] * np.ones((20, 3), np.float32)
    with stored([Recording("a", length, [Track(0, x_tvc)])]) as store:
        packed = PackedClips(store, bodies=1)
    for share in (0.1, 0.5, 0.7, 0.9, 1.0):
        window = torch.tensor([[1.0, share]])
        own = packed.gather(torch.tensor([0]), None, window)
        resampled = packed.gather(torch.tensor([0]), 3, window)
        assert own.x[0, 0, :, 0, 0].tolist()[-1] == length
        assert resampled.x[0, 0, -1, 0, 0].item() == pytest.approx(length, abs=1e-5)


def test_a_clip_may_be_drawn_many_times_in_any_order():
    clips = [Recording(str(n), 3, [Track(0, np.full((3, 20, 3), n + 1.0, np.float32))]) for n in range(3)]
    with stored(clips) as store:
        batch = PackedClips(store, bodies=1).gather(torch.tensor([2, 0, 2]), 4)
    assert batch.x.amax((1, 2, 3, 4)).tolist() == [3, 1, 3]
    assert len(batch) == 3


@given(recordings(most_clips=3), recordings(most_clips=3), st.none() | st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_the_clips_of_several_stores_follow_one_another(one, two, frames, bodies):
    with stored(one) as first, stored(two) as second:
        together = PackedClips([first, second, first], bodies)
        alone = [PackedClips(store, bodies) for store in (first, second, first)]
    assert together.labels.tolist() == [clip.label for clip in (*one, *two, *one)]
    begin = 0
    for packed in alone:
        for n in range(len(packed.lengths)):
            found, wanted = (
                p.gather(torch.tensor([i]), frames) for p, i in ((together, begin + n), (packed, n))
            )
            assert torch.equal(found.x, wanted.x)
            assert torch.equal(found.lengths, wanted.lengths)
        begin += len(packed.lengths)


def test_another_layout_shows_the_joints_of_that_name():
    clips = [
        Recording("a", 2, [Track(0, np.random.default_rng(0).normal(size=(2, 20, 3)).astype(np.float32))])
    ]
    target = load_layout("common_15")
    with stored(clips) as store:
        packed = PackedClips(store, bodies=1, layout=target)
        itself = PackedClips(store, bodies=1, layout=LAYOUT)
    assert packed.layout == target
    x_ctv = packed.gather(torch.tensor([0]), None).x[0, ..., 0].numpy()
    assert x_ctv.shape == (3, 2, 15)
    for name in ("left_wrist", "right_ankle", "head"):
        wanted = clips[0].tracks[0].x_tvc[:, LAYOUT.index(name)].T
        np.testing.assert_array_equal(x_ctv[:, :, target.index(name)], wanted)
    assert torch.equal(itself.frames.x_rvc, torch.from_numpy(clips[0].tracks[0].x_tvc))


def test_repair_comes_before_everything():
    x_tvc = np.ones((3, 20, 3), np.float32) * np.array([1, 0, 3], np.float32)[:, None, None]
    with stored([Recording("a", 3, [Track(0, x_tvc)])]) as store:
        packed = PackedClips(store, bodies=1, mend=RepairConfig(fill_gaps=1))
        plain = PackedClips(store, bodies=1)
    own = torch.tensor([0])
    assert packed.gather(own, None).x[0, 0, :, 0, 0].tolist() == [1, 2, 3]
    assert plain.gather(own, None).x[0, 0, :, 0, 0].tolist() == [1, 0, 3]


def seen_joints(packed: PackedClips) -> torch.Tensor:
    """Which joints are seen in each row, (R, V)."""
    return packed.frames.joints(torch.arange(len(packed.frames.seen_r)))[1]


def image_store(tmp_path, clips: list[Recording]) -> Store:
    """The clips, of x, y and confidence, as a store."""
    write_store(tmp_path / "image", clips, facts=Facts("image", LAYOUT, 30.0, coordinates=IMAGE))
    return open_store(tmp_path / "image")


def test_repair_knows_that_a_confidence_is_no_place(tmp_path):
    """A joint with the confidence zero is missing, so its place is filled, and the confidence is not."""
    x_tvc = np.ones((3, 20, 3), np.float32)
    x_tvc[:, 4, 0] = [1, 7, 3]
    x_tvc[1, 4, 2] = 0
    x_tvc[1, 5] = 0
    store = image_store(tmp_path, [Recording("a", 3, [Track(0, x_tvc)])])
    packed = PackedClips(store, bodies=1, mend=RepairConfig(fill_gaps=1))
    assert packed.frames.x_rvc[:, 4, 0].tolist() == [1, 2, 3]
    assert packed.frames.x_rvc[:, 4, 2].tolist() == [1, 0, 1]
    assert packed.frames.x_rvc[1, 5].tolist() == [1, 1, 0]


def relative(seed: int, frames: int = 5, holes: bool = False) -> list[Recording]:
    """Two clips with the root at zero in all frames, the second body comes and goes."""
    rng = np.random.default_rng(seed)
    x_mtvc = rng.normal(size=(2, frames, 20, 3)).astype(np.float32)
    x_mtvc[:, :, LAYOUT.index(LAYOUT.root)] = 0
    x_mtvc[1, 2] = 0
    if holes:
        x_mtvc[:, 1, LAYOUT.index("head")] = 0
    return [Recording(str(n), frames, [Track(0, x_tvc)]) for n, x_tvc in enumerate(x_mtvc)]


@pytest.mark.parametrize("layout", [None, "common_15"])
@pytest.mark.parametrize("holes", [False, True])
def test_a_root_at_zero_throughout_is_there(layout, holes):
    target = load_layout(layout) if layout else LAYOUT
    with stored(relative(0, holes=holes)) as store:
        packed = PackedClips(store, bodies=1, layout=target)
    clips = packed.gather(torch.tensor([0, 1]), None)
    body = torch.ones(2, 5, dtype=torch.bool)
    body[1, 2] = False
    assert torch.equal(clips.seen[:, 0, :, 0 if not holes else target.index(target.root), 0], body)
    assert clips.seen.shape[3] == (len(target.joints) if holes else 1)
    bone = streams(clips, target, ["bone"]).x
    for child, parent in target.bones.items():
        if parent == target.root:
            place = target.index(child)
            assert torch.equal(bone[:, :, :, place], clips.x[:, :, :, place])
            assert bone[0, :, 0, place].all()


def test_a_root_at_zero_is_missing_where_the_store_shows_it_elsewhere():
    clips = relative(0)
    root = LAYOUT.index(LAYOUT.root)
    clips[0].tracks[0].x_tvc[3, root] = 1
    with stored(clips) as store, stored(relative(1)) as other:
        alone = PackedClips(store, bodies=1)
        both = PackedClips([store, other], bodies=1)
    wanted = [False, False, False, True, *[False] * 6]
    assert seen_joints(alone)[:, root].tolist() == wanted
    assert seen_joints(both)[:, root].tolist() == [*wanted, *[True] * 7, False, True, True]


def test_another_joint_or_a_root_in_an_image_at_zero_throughout_is_missing(tmp_path):
    clips, root = relative(0), LAYOUT.index(LAYOUT.root)
    assert not seen_joints(PackedClips(image_store(tmp_path, clips), bodies=1))[:, root].any()
    clips = relative(0)
    for clip in clips:
        clip.tracks[0].x_tvc[:, LAYOUT.index("head")] = 0
    with stored(clips) as store:
        packed = PackedClips(store, bodies=1)
    assert not seen_joints(packed)[:, LAYOUT.index("head")].any()
    assert seen_joints(packed)[0, root]


@pytest.mark.parametrize("mend", [None, RepairConfig(fill_gaps=2, smooth=5)])
@pytest.mark.parametrize("layout", [None, "common_15"])
@pytest.mark.parametrize("block", [1, 3, 7, 1 << 16])
def test_blocks_are_only_a_matter_of_memory(block, layout, mend, monkeypatch):
    monkeypatch.setattr("ssl_skeleton.data.store._BLOCK", block)
    target = load_layout(layout) if layout else LAYOUT
    matrix = remap_matrix(LAYOUT, target)
    clips = without_joints(relative(3, frames=9), 3)
    with stored(clips) as store:
        found = PackedClips([store, store], bodies=1, layout=target, mend=mend).frames.x_rvc.numpy()
        single = PackedClips(store, bodies=1, layout=target, mend=mend).frames.x_rvc.numpy()
        wanted = (
            np.array(store.frames_rvc) if mend is None else repair(store.frames_rvc, store.tracks, mend)[0]
        )
    wanted = remap(wanted, matrix) if layout else wanted
    np.testing.assert_array_equal(single, wanted)
    np.testing.assert_array_equal(found, np.concatenate([wanted, wanted]))
    assert single.flags.writeable


@pytest.mark.parametrize("row", [0, 4, 9])
def test_what_is_not_finite_is_refused_with_its_row(row, monkeypatch):
    monkeypatch.setattr("ssl_skeleton.data.store._BLOCK", 4)
    with stored(relative(0)) as store:
        wrong = np.array(store.frames_rvc)
        wrong[row, 3, 1] = np.nan
        with pytest.raises(UserError, match=rf"frames.npy: row {row} is not finite; prepare the store again"):
            PackedClips(replace(store, frames_rvc=wrong), bodies=1)


def test_loading_takes_little_more_memory_than_the_frames(tmp_path):
    """One array for all stores, filled from their maps block by block."""
    x_tvc = np.random.default_rng(0).normal(size=(100_000, 20, 3)).astype(np.float32)
    write_store(tmp_path / "long", [Recording("a", len(x_tvc), [Track(0, x_tvc)])])
    store = open_store(tmp_path / "long")
    tracemalloc.start()
    try:
        packed = PackedClips([store, store], bodies=1)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.2 * packed.frames.x_rvc.nbytes


def test_stores_of_other_coordinates_do_not_mix(tmp_path):
    clips = [Recording("a", 1, [Track(0, np.ones((1, 20, 3), np.float32))])]
    with (
        stored(clips) as store,
        pytest.raises(UserError, match=r"has x, y, confidence, but the other store x, y, z"),
    ):
        PackedClips([store, image_store(tmp_path, clips)], bodies=1)
