from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from builders import FACTS, LAYOUT, examples, recordings, seeds, stored, without_joints, write_store
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data import altered
from ssl_skeleton.data.altered import (
    at_another_tempo,
    beginnings,
    part_of,
    resized,
    turned_about_vertical,
    with_noise,
    without_frames,
)
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import IMAGE, Recording, Track
from ssl_skeleton.data.repair import RepairConfig
from ssl_skeleton.data.store import Store, open_store

JOINTS = len(LAYOUT.joints)
ROOT = LAYOUT.index(LAYOUT.root)
MENDED = RepairConfig(drop_phantoms=True, fix_swaps=True, fill_gaps=2, smooth=5)
levels = st.floats(0, 0.99)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def missing_joints(store: Store, share: float, seed: int, *, throughout: bool = True) -> Store:
    return altered.without_joints(store, share, rng(seed), throughout=throughout)


def shown(store: Store, index: np.ndarray, **options) -> list[Clips]:
    """Clips in every way in which a run may meet them."""
    ways = []
    for order in ("stored", "moving"):
        packed = PackedClips(store, bodies=2, order=order, **options)
        own = torch.from_numpy(index)
        ways += [packed.gather(own, None), packed.gather(own, 5), packed.loop(own, 7)]
    return ways


def assert_same_clips(found: list[Clips], wanted: list[Clips]) -> None:
    for one, other in zip(found, wanted, strict=True):
        for name in ("x", "lengths", "label", "seen"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name


def tracks_of(store: Store) -> list[np.ndarray]:
    """The frames (T, V, C) of every track."""
    return [store.frames_rvc[row : row + frames] for _, row, _, frames in store.tracks]


def walked(frames: int = 40, clips: int = 3) -> list[Recording]:
    """Bodies all of whose joints are seen, at any place, each clip another one."""
    source = rng(7)
    steps = source.normal(scale=0.05, size=(clips, frames, JOINTS, 3)).cumsum(axis=1)
    x_ntvc = (steps + source.normal(size=(clips, 1, JOINTS, 3)) + [1, 0, 3]).astype(np.float32)
    return [Recording(f"clip{n}", frames, [Track(0, x_tvc)]) for n, x_tvc in enumerate(x_ntvc)]


def about_the_root(clips: list[Recording]) -> list[Recording]:
    tracks = [[Track(t.first_frame, t.x_tvc - t.x_tvc[:, ROOT : ROOT + 1]) for t in c.tracks] for c in clips]
    return [replace(clip, tracks=own) for clip, own in zip(clips, tracks, strict=True)]


@given(recordings(most_clips=4), st.none() | seeds, st.data())
@settings(max_examples=examples(12), deadline=None)
def test_a_part_of_a_store_has_its_clips(clips, holes, data):
    clips = clips if holes is None else without_joints(clips, holes)
    chosen = data.draw(st.permutations(range(len(clips))))[: data.draw(st.integers(1, len(clips)))]
    index = np.array(chosen)
    with stored(clips) as store:
        part = part_of(store, index)
        assert_same_clips(shown(part, np.arange(len(index))), shown(store, index))
        mended = shown(part, np.arange(len(index)), mend=MENDED)
        assert_same_clips(mended, shown(store, index, mend=MENDED))
        assert part.names == tuple(store.names[clip] for clip in chosen)
        assert (part.meta.clips, part.meta.tracks, part.meta.rows) == (
            len(part),
            len(part.tracks),
            len(part.frames_rvc),
        )


@given(recordings(most_clips=3), st.none() | seeds)
@settings(max_examples=examples(12), deadline=None)
def test_nothing_changes_where_nothing_is_asked_for(clips, holes):
    clips = clips if holes is None else without_joints(clips, holes)
    with stored(clips) as store:
        for same in (
            beginnings(store, 1.0),
            missing_joints(store, 0.0, 1),
            with_noise(store, 0.0, rng()),
            without_frames(store, 0.0, rng()),
            at_another_tempo(store, 0.0, rng()),
        ):
            np.testing.assert_array_equal(same.frames_rvc, store.frames_rvc)
            np.testing.assert_array_equal(same.tracks, store.tracks)
            np.testing.assert_array_equal(same.lengths, store.lengths)
        for same in (turned_about_vertical(store, 0.0, rng()), resized(store, 0.0, rng())):
            np.testing.assert_allclose(same.frames_rvc, store.frames_rvc, atol=1e-5)


def dense(store: Store, clip: int) -> list[np.ndarray]:
    """Every body of a clip in all frames of it (T, V, C)."""
    bodies = []
    for own, row, first, frames in store.tracks:
        if own == clip:
            x_tvc = np.zeros((store.lengths[clip], *store.frames_rvc.shape[1:]), np.float32)
            x_tvc[first : first + frames] = store.frames_rvc[row : row + frames]
            bodies.append(x_tvc)
    return bodies


@given(recordings(most_clips=3), st.floats(0.01, 1))
@settings(max_examples=examples(12), deadline=None)
def test_a_beginning_is_the_first_frames(clips, share):
    with stored(clips) as store:
        cut = beginnings(store, share)
        for clip, recording in enumerate(clips):
            frames = max(1, round(share * recording.frames))
            assert cut.lengths[clip] == frames
            for found, wanted in zip(dense(cut, clip), dense(store, clip), strict=True):
                np.testing.assert_array_equal(found, wanted[:frames])


@given(recordings(most_clips=3), st.floats(0.01, 0.99), seeds, st.sampled_from([RepairConfig(), MENDED]))
@settings(max_examples=examples(20), deadline=None)
def test_what_comes_after_a_beginning_makes_no_difference(clips, share, seed, mend):
    """Neither by itself nor through repairs, nor for which bodies are seen."""
    noise, poisoned = rng(seed), []
    for clip in clips:
        frames = max(1, round(share * clip.frames))
        tracks = []
        for track in clip.tracks:
            x_tvc, late = track.x_tvc.copy(), max(frames - track.first_frame, 0)
            x_tvc[late:] = noise.normal(scale=100, size=x_tvc[late:].shape)
            tracks.append(Track(track.first_frame, x_tvc))
        poisoned.append(replace(clip, tracks=tracks))
    every = np.arange(len(clips))
    with stored(clips) as store, stored(poisoned) as other:
        if store.root_at_zero != other.root_at_zero:
            return  # it is a fact of all recordings of a store
        found, wanted = (shown(beginnings(one, share), every, mend=mend) for one in (other, store))
        assert_same_clips(found, wanted)


@pytest.mark.parametrize("throughout", [True, False])
@given(clips=recordings(most_clips=3), share=levels, seed=seeds)
@settings(max_examples=examples(12), deadline=None)
def test_so_many_joints_are_missing(throughout, clips, share, seed):
    count = min(round(share * JOINTS), JOINTS - 1)
    with stored(clips) as store:
        found = missing_joints(store, share, seed, throughout=throughout)
        for x_tvc, was_tvc in zip(tracks_of(found), tracks_of(store), strict=True):
            seen_t = was_tvc.any(axis=(1, 2))
            gone_tv = ~x_tvc.any(axis=2)
            assert (gone_tv[seen_t].sum(axis=1) == count).all()
            np.testing.assert_array_equal(x_tvc[~gone_tv], was_tvc[~gone_tv])
            if throughout:
                assert (gone_tv[seen_t] == gone_tv[seen_t][:1]).all()


def test_missing_joints_differ_from_clip_to_clip_and_from_frame_to_frame(tmp_path):
    write_store(tmp_path / "store", walked(clips=30))
    store = open_store(tmp_path / "store")
    for throughout in (True, False):
        gone_rv = ~missing_joints(store, 0.3, 1, throughout=throughout).frames_rvc.any(axis=2)
        patterns = len(np.unique(gone_rv, axis=0))
        assert patterns == 30 if throughout else patterns > 1000
        assert gone_rv.mean(axis=0) == pytest.approx(0.3, abs=0.2 if throughout else 0.05)


@pytest.mark.parametrize("throughout", [True, False])
def test_the_root_that_others_are_relative_to_is_never_missing(throughout, tmp_path):
    write_store(tmp_path / "store", about_the_root(walked()))
    store = open_store(tmp_path / "store")
    packed = PackedClips(missing_joints(store, 0.9, 0, throughout=throughout), bodies=1)
    seen = packed.gather(torch.arange(3), None).seen[:, 0, :, :, 0]
    assert seen[:, :, ROOT].all()
    assert (seen.sum(dim=2) == 2).all()  # it, and a tenth of the 20 joints less the root itself


def test_a_root_that_is_missing_everywhere_is_not_the_origin(tmp_path):
    write_store(tmp_path / "store", walked())
    store = open_store(tmp_path / "store")
    part = part_of(store, np.array([1]))
    seeds_without = [s for s in range(20) if not missing_joints(part, 0.5, s).frames_rvc[:, ROOT].any()]
    assert seeds_without
    packed = PackedClips(missing_joints(part, 0.5, seeds_without[0]), bodies=1)
    assert not packed.gather(torch.tensor([0]), None).seen[0, 0, :, ROOT].any()


LESS_AND_MORE: dict[str, Callable[[Store, float], np.ndarray]] = {
    "joints": lambda store, share: missing_joints(store, share, 3).frames_rvc != store.frames_rvc,
    "joints in frames": lambda store, share: (
        missing_joints(store, share, 3, throughout=False).frames_rvc != store.frames_rvc
    ),
    "frames": lambda store, share: without_frames(store, share, rng(3)).frames_rvc != store.frames_rvc,
}


@pytest.mark.parametrize("kind", LESS_AND_MORE)
def test_what_is_lost_at_a_lower_level_is_lost_at_a_higher_one(kind, tmp_path):
    write_store(tmp_path / "store", walked())
    store = open_store(tmp_path / "store")
    lost = [LESS_AND_MORE[kind](store, share) for share in (0.1, 0.3, 0.5, 0.9)]
    for less, more in pairwise(lost):
        assert less.sum() < more.sum()
        assert not (less & ~more).any()


@given(recordings(most_clips=3), seeds, st.floats(0.001, 0.2))
@settings(max_examples=examples(12), deadline=None)
def test_noise_moves_what_is_there(clips, seed, deviation):
    with stored(without_joints(clips, seed)) as store:
        noisy = with_noise(store, deviation, rng(seed)).frames_rvc
        twice = with_noise(store, 2 * deviation, rng(seed)).frames_rvc
        seen_rv = store.frames_rvc.any(axis=2)
        assert not noisy[~seen_rv].any()
        noise = (noisy - store.frames_rvc)[seen_rv]
        np.testing.assert_allclose((twice - store.frames_rvc)[seen_rv], 2 * noise, atol=1e-5)
        drawn = rng(seed).standard_normal(noisy.shape, dtype=np.float32)[seen_rv]
        np.testing.assert_allclose(noise, deviation * drawn, atol=1e-5)


def test_noise_has_its_deviation_and_no_confidence(tmp_path):
    clips = [replace(clip, tracks=[Track(0, np.abs(clip.tracks[0].x_tvc))]) for clip in walked(60)]
    write_store(tmp_path / "store", clips, facts=replace(FACTS, coordinates=IMAGE))
    store = open_store(tmp_path / "store")
    noise = with_noise(store, 0.05, rng(1)).frames_rvc - store.frames_rvc
    assert not noise[..., 2].any()
    assert noise[..., :2].std() == pytest.approx(0.05, rel=0.05)
    assert noise[..., :2].mean() == pytest.approx(0, abs=0.005)


def turned_by_loops(store: Store, degrees: float, seed: int) -> np.ndarray:
    """In float64: every clip about the vertical through the mean of all joints that it shows."""
    angles = rng(seed).uniform(-1, 1, len(store)) * degrees * np.pi / 180
    turned = store.frames_rvc.astype(np.float64)
    for clip, angle in enumerate(angles):
        rows = [slice(row, row + frames) for own, row, _, frames in store.tracks if own == clip]
        places = [p for own in rows for pose in store.frames_rvc[own] for p in pose if p.any()]
        middle = np.mean(places, axis=0, dtype=float) * [1, 0, 1] if places else np.zeros(3)
        about = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        for own in rows:
            for pose in turned[own]:
                for joint, place in enumerate(pose):
                    if place.any():
                        pose[joint] = about @ (place - middle) + middle
    return turned


@given(recordings(most_clips=3), seeds, st.floats(1, 180))
@settings(max_examples=examples(12), deadline=None)
def test_clips_are_turned_about_whom_they_show(clips, seed, degrees):
    with stored(without_joints(clips, seed)) as store:
        if store.root_at_zero:
            return
        turned = turned_about_vertical(store, degrees, rng(seed)).frames_rvc
        np.testing.assert_allclose(turned, turned_by_loops(store, degrees, seed), atol=1e-4)
        assert not turned[~store.frames_rvc.any(axis=2)].any()


def test_recordings_relative_to_the_root_are_turned_about_it(tmp_path):
    write_store(tmp_path / "store", about_the_root(walked()))
    store = open_store(tmp_path / "store")
    turned = turned_about_vertical(store, 90.0, rng(0)).frames_rvc
    assert not turned[:, ROOT].any()
    np.testing.assert_allclose(
        np.linalg.norm(turned, axis=2), np.linalg.norm(store.frames_rvc, axis=2), rtol=1e-4, atol=1e-5
    )
    assert np.abs(turned - store.frames_rvc)[..., [0, 2]].mean() > 0.1


@given(recordings(most_clips=3), seeds, st.floats(0.01, 0.99))
@settings(max_examples=examples(12), deadline=None)
def test_clips_are_resized_about_the_middle_of_what_they_show(clips, seed, level):
    with stored(without_joints(clips, seed)) as store:
        found = resized(store, level, rng(seed)).frames_rvc
        factors = 1 + level * rng(seed).uniform(-1, 1, len(store))
        for clip, factor in enumerate(factors):
            rows = [slice(row, row + frames) for own, row, _, frames in store.tracks if own == clip]
            places = [p for own in rows for pose in store.frames_rvc[own] for p in pose if p.any()]
            middle = np.zeros(3) if store.root_at_zero or not places else np.mean(places, axis=0, dtype=float)
            for own in rows:
                was_tvc = store.frames_rvc[own]
                wanted = (factor * (was_tvc - middle) + middle) * was_tvc.any(axis=2, keepdims=True)
                np.testing.assert_allclose(found[own], wanted, atol=1e-4)


def test_confidences_keep_their_size(tmp_path):
    clips = [replace(clip, tracks=[Track(0, np.abs(clip.tracks[0].x_tvc))]) for clip in walked()]
    write_store(tmp_path / "store", clips, facts=replace(FACTS, coordinates=IMAGE))
    store = open_store(tmp_path / "store")
    found = resized(store, 0.5, rng(1)).frames_rvc
    np.testing.assert_array_equal(found[..., 2], store.frames_rvc[..., 2])
    assert (found[..., :2] != store.frames_rvc[..., :2]).any()


@given(recordings(most_clips=3), st.floats(0, 0.99), seeds)
@settings(max_examples=examples(20), deadline=None)
def test_at_another_tempo_frames_come_from_other_times(clips, level, seed):
    clips = without_joints(clips, seed)
    with stored(clips) as store:
        found = at_another_tempo(store, level, rng(seed))
        assert found.lengths.tolist() == store.lengths.tolist()
        bends = level * rng(seed).uniform(-1, 1, len(store))
        for clip, bend in enumerate(bends):
            last = int(store.lengths[clip]) - 1
            times = [
                t + bend * last * np.sin(2 * np.pi * t / max(last, 1)) / (2 * np.pi) for t in range(last + 1)
            ]
            assert all(one < other for one, other in pairwise(times))
            for x_tvc, was_tvc in zip(dense(found, clip), dense(store, clip), strict=True):
                for t, time in enumerate(times):
                    before, part = int(time), time - int(time)
                    if abs(part - 0.5) < 1e-6:
                        continue  # either of them may be the nearer
                    for joint, place in enumerate(x_tvc[t]):
                        after = was_tvc[min(before + 1, last), joint]
                        wanted = joint_between(was_tvc[before, joint], after, part)
                        np.testing.assert_allclose(place, wanted, atol=1e-4)


def test_a_tempo_changes_smoothly_and_keeps_both_ends(tmp_path):
    clock = [Track(0, np.broadcast_to(np.arange(1, 42.0, dtype=np.float32)[:, None, None], (41, JOINTS, 3)))]
    write_store(tmp_path / "store", [Recording(f"clip{n}", 41, clock) for n in range(20)])
    found = at_another_tempo(open_store(tmp_path / "store"), 0.8, rng(2)).frames_rvc[:, 0, 0].reshape(20, 41)
    np.testing.assert_allclose(found[:, [0, 20, 40]], [[1, 21, 41]] * 20, atol=1e-4)
    speed = np.diff(found, axis=1)
    assert speed.min() > 0.19
    assert speed.max() < 1.81
    faster_first = speed[:, 0] > 1
    assert 0 < faster_first.sum() < 20
    assert ((speed[:, 20] < 1) == faster_first).all()


def with_clock(clips: list[Recording]) -> list[Recording]:
    """With one more body, first, whose joints are where the square of the frame's number says."""
    clocks = [np.arange(clip.frames, dtype=np.float32)[:, None, None] ** 2 + 1 for clip in clips]
    bodies = [Track(0, np.broadcast_to(clock, (len(clock), JOINTS, 3))) for clock in clocks]
    return [replace(clip, tracks=[body, *clip.tracks]) for clip, body in zip(clips, bodies, strict=True)]


def joint_between(one: np.ndarray, two: np.ndarray, share: float) -> np.ndarray:
    nearer = one if share <= 0.5 else two
    if not nearer.any() or not one.any() or not two.any():
        return nearer
    return (1 - share) * one.astype(float) + share * two.astype(float)


@given(recordings(most_clips=3), st.floats(0, 0.99), seeds)
@settings(max_examples=examples(12), deadline=None)
def test_lost_frames_are_drawn_from_those_around_them(clips, share, seed):
    clips = with_clock(without_joints(clips, seed))
    with stored(clips, bodies=4) as store:
        found = without_frames(store, share, rng(seed))
        assert found.lengths.tolist() == store.lengths.tolist()
        for clip, recording in enumerate(clips):
            bodies, were = dense(found, clip), dense(store, clip)
            # Between frames a square lies above itself, so that the clock tells which frames are kept.
            kept = [t for t in range(recording.frames) if bodies[0][t, 0, 0] == t * t + 1]
            lost = recording.frames - len(kept)
            assert lost == np.rint(share * max(recording.frames - 2, 0))
            assert {0, recording.frames - 1} <= set(kept)
            for track, x_tvc, was_tvc in zip(recording.tracks, bodies, were, strict=True):
                for t in range(track.first_frame, track.first_frame + len(track.x_tvc)):
                    before, after = max(k for k in kept if k <= t), min(k for k in kept if k >= t)
                    part = (t - before) / (after - before) if after > before else 0.0
                    for joint, place in enumerate(x_tvc[t]):
                        wanted = joint_between(was_tvc[before, joint], was_tvc[after, joint], part)
                        np.testing.assert_allclose(place, wanted, atol=1e-4)


def test_a_body_outside_its_track_stays_so():
    """Even where the frame that shows it is the nearest to a lost one before it."""
    x_tvc = np.ones((2, JOINTS, 3), np.float32)
    with stored([Recording("late", 9, [Track(3, x_tvc)])]) as store:
        for seed in range(20):
            found = without_frames(store, 0.9, rng(seed))
            np.testing.assert_array_equal(found.tracks, store.tracks)
            assert np.isin(found.frames_rvc, (0, 1)).all()
