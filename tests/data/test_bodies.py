import numpy as np
import pytest
from builders import LAYOUT, recordings, seeds, stored, write_store
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.bodies import by_motion, is_wide, motion, persons, track_motion
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import IMAGE, Facts, Recording, Track
from ssl_skeleton.data.store import open_store

LONG = 11


def standing(frames: int, step: float = 0.0, wide: int = 0) -> np.ndarray:
    """A body twice as high as wide that walks `step` a frame; in its first `wide` frames it lies down."""
    x_tvc = np.zeros((frames, 4, 3), np.float32)
    x_tvc[:, :, 0] = [0.0, 1.0, 0.5, 0.5]
    x_tvc[:, :, 1] = [0.0, 0.0, 2.0, 1.0]
    x_tvc[:wide, :, 1] *= 0.5
    x_tvc[..., 2] = step * np.arange(frames)[:, None]
    return x_tvc


def plain_persons(bodies: list[np.ndarray]) -> list[int]:
    """The rule, word by word and in loops."""
    kept = list(range(len(bodies)))
    if len(kept) < 2:
        return kept
    if any(len(bodies[body]) > 10 for body in kept):
        kept = [body for body in kept if len(bodies[body]) > 10]
    narrow = []
    for body in kept:
        wide = 0
        for pose in bodies[body]:
            wide += pose[:, 0].max() - pose[:, 0].min() > 0.8 * (pose[:, 1].max() - pose[:, 1].min())
        if wide / len(bodies[body]) <= 0.7:
            narrow.append(body)
    kept = narrow or kept
    spread = [sum(body[..., c].astype(np.float64).std() for c in range(body.shape[-1])) for body in bodies]
    return sorted(kept, key=lambda body: -spread[body])


@given(seeds, st.lists(st.integers(1, 14), max_size=5), st.integers(2, 3))
@settings(max_examples=300, deadline=None)
def test_agrees_with_a_plain_reference(seed, lengths, spatial):
    rng = np.random.default_rng(seed)
    bodies = [rng.normal(size=(frames, 6, spatial)).astype(np.float32) for frames in lengths]
    for x_tvc in bodies:
        x_tvc[..., 0] *= rng.uniform(0.4, 1.2)  # some are wide, and some are so in part of their frames
    assert persons(bodies) == plain_persons(bodies)


@given(seeds, st.lists(st.integers(1, 14), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_somebody_stays_and_nobody_stays_twice(seed, lengths):
    rng = np.random.default_rng(seed)
    kept = persons([rng.normal(size=(frames, 3, 3)).astype(np.float32) for frames in lengths])
    assert kept
    assert len(set(kept)) == len(kept)
    assert set(kept) <= set(range(len(lengths)))


def test_a_short_body_goes_when_another_lives_longer():
    assert persons([standing(10, 5.0), standing(LONG)]) == [1]
    assert persons([standing(10, 5.0), standing(10)]) == [0, 1]
    assert persons([standing(1)]) == [0]
    assert persons([]) == []


@pytest.mark.parametrize(("wide", "kept"), [(14, [0, 1]), (15, [1])])
def test_a_wide_body_is_wide_in_more_than_seven_tenths_of_its_frames(wide, kept):
    assert persons([standing(20, 5.0, wide), standing(20)]) == kept
    assert persons([standing(20, 5.0, wide), standing(20, 1.0, 20)]) == ([0, 1] if wide == 15 else [0])


def test_the_body_that_moves_more_comes_first():
    assert persons([standing(LONG, 0.1), standing(LONG), standing(LONG, 0.2)]) == [2, 0, 1]
    assert motion(standing(LONG, 0.2)) > motion(standing(LONG, 0.1)) > 0
    assert not is_wide(standing(3))
    assert is_wide(standing(3, wide=3))


def plain_motion(x_tvc: np.ndarray) -> float:
    """The spread of what is seen, coordinate by coordinate."""
    points = [joint for pose in x_tvc.astype(np.float64) for joint in pose if joint.any()]
    if not points:
        return 0.0
    spread = 0.0
    for values in zip(*points, strict=True):
        mean = sum(values) / len(values)
        spread += (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
    return spread


def table_of(bodies: list[np.ndarray]) -> np.ndarray:
    """Tracks of one clip, one after another, as a store has them."""
    ends = np.cumsum([0, *map(len, bodies)])
    return np.array([(0, row, 0, len(body)) for row, body in zip(ends[:-1], bodies, strict=True)])


@given(seeds, st.lists(st.integers(1, 5), min_size=1, max_size=5), st.floats(0, 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_motion_agrees_with_a_plain_reference(seed, lengths, share, whole):
    rng = np.random.default_rng(seed)
    bodies = [rng.normal(3, 2, (frames, 4, 3)).astype(np.float32) for frames in lengths]
    for body in bodies:
        body[rng.random(body.shape[:1] if whole else body.shape[:2]) < share] = 0
    frames_rvc = np.concatenate(bodies)
    seen_rv = frames_rvc.any(axis=2)
    if whole:
        seen_rv = seen_rv.any(axis=1, keepdims=True)
    found = track_motion(table_of(bodies), frames_rvc, seen_rv)
    np.testing.assert_allclose(found, [plain_motion(body) for body in bodies], atol=1e-6)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_of_whole_bodies_it_is_the_usual_motion(seed):
    bodies = list(np.random.default_rng(seed).normal(size=(3, 6, 4, 3)).astype(np.float32))
    found = track_motion(table_of(bodies), np.concatenate(bodies), np.ones((18, 1), bool))
    np.testing.assert_allclose(found, [motion(body) for body in bodies], rtol=1e-6)


@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_are_only_a_matter_of_memory(block, monkeypatch):
    rng = np.random.default_rng(0)
    bodies = [rng.normal(size=(frames, 4, 3)).astype(np.float32) for frames in (5, 1, 9, 4)]
    asked = (table_of(bodies), np.concatenate(bodies), np.ones((19, 4), bool))
    whole = track_motion(*asked)
    monkeypatch.setattr("ssl_skeleton.data.store._BLOCK", block)
    np.testing.assert_array_equal(track_motion(*asked), whole)


@pytest.mark.parametrize("block", [1, 4, 1 << 16])
def test_equal_bodies_stay_in_the_order_in_which_they_are_stored(block, monkeypatch):
    """However few rows are looked at together."""
    monkeypatch.setattr("ssl_skeleton.data.store._BLOCK", block)
    x_tvc = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
    still = np.ones_like(x_tvc)
    bodies = [still, x_tvc, still, 2 * x_tvc, x_tvc]
    tracks = table_of(bodies)
    x_rvc = np.concatenate(bodies)
    found = by_motion(tracks, lambda rows: (x_rvc[rows], np.ones((15, 1), bool)[rows]))
    assert found.tolist() == tracks[[3, 1, 4, 0, 2]].tolist()


@given(recordings(most_clips=4), st.integers(1, 3), st.none() | st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_every_clip_gets_its_own_strongest_bodies(clips, bodies, frames):
    """Drawing from ranked clips is drawing from clips whose tracks were stored in that order."""
    ranked = []
    for clip in clips:
        tracks = sorted(clip.tracks, key=lambda track: -plain_motion(track.x_tvc))
        ranked.append(Recording(clip.name, clip.frames, tracks, label=clip.label))
    with stored(clips) as store, stored(ranked) as wanted:
        one, two = PackedClips(store, bodies, order="moving"), PackedClips(wanted, bodies)
        both = PackedClips([store, store], bodies, order="moving")
    for n in range(len(clips)):
        found, expected, again = (
            packed.gather(packed.labels.new_tensor([at]), frames).x
            for packed, at in ((one, n), (two, n), (both, len(clips) + n))
        )
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(again, expected)


def test_a_confidence_is_no_motion(tmp_path):
    rng = np.random.default_rng(0)
    calm, lively = rng.normal(1, [0.1, 0.1, 3], (4, 20, 3)), rng.normal(1, [0.5, 0.5, 0], (4, 20, 3))
    tracks = [Track(0, x_tvc.astype(np.float32)) for x_tvc in (calm, lively)]
    facts = Facts("image", LAYOUT, 30.0, coordinates=IMAGE)
    write_store(tmp_path / "image", [Recording("a", 4, tracks)], facts=facts)
    packed = PackedClips(open_store(tmp_path / "image"), 1, order="moving")
    x_tvc = packed.gather(packed.labels.new_tensor([0]), None).x[0, ..., 0].permute(1, 2, 0)
    np.testing.assert_array_equal(x_tvc, tracks[1].x_tvc)
