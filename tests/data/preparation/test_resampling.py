import warnings
from fractions import Fraction

import numpy as np
import pytest
from builders import LAYOUT, examples, seeds, tracks
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.preparation.resampling import resample
from ssl_skeleton.data.recording import Facts, Recording, Track, check_recording

RATES = [10, 12, 15, 24, 25, 29.97, 30, 50, 59.94, 60, 100, 120]


@st.composite
def clips(draw: st.DrawFn) -> Recording:
    frames = draw(st.integers(1, 12))
    bodies = draw(st.lists(tracks(frames), max_size=2))
    rng = np.random.default_rng(draw(seeds))
    for track in bodies:  # single joints are missing
        track.x_tvc[rng.random(track.x_tvc.shape[:2]) < draw(st.sampled_from([0, 0.3]))] = 0
    return Recording("a", frames, [track for track in bodies if track.x_tvc.any()], label=1, camera=2)


def seen_at(track: Track, frame: int) -> np.ndarray | None:
    """The body in a frame of the clip, None where it is not seen."""
    place = frame - track.first_frame
    shown = 0 <= place < len(track.x_tvc) and track.x_tvc[place].any()
    return track.x_tvc[place].astype(np.float64) if shown else None


def plain(track: Track, frames: int, before: float, after: float) -> dict[int, np.ndarray]:
    """What is seen of a body in each new frame, reckoned one by one with exact fractions."""
    step = Fraction(str(before)) / Fraction(str(after))
    found = {}
    new, last = 0, track.first_frame + len(track.x_tvc) - 1
    while new * step <= frames - 1:
        time = new * step
        if track.first_frame <= time <= last:
            earlier = time.numerator // time.denominator
            share = float(time - earlier)
            one, other = seen_at(track, earlier), seen_at(track, min(earlier + 1, last))
            nobody = np.zeros(track.x_tvc.shape[1:])
            joints = zip(nobody if one is None else one, nobody if other is None else other, strict=True)
            body = np.stack([plain_joint(*pair, share) for pair in joints])
            if body.any():
                found[new] = body
        new += 1
    return found


def plain_joint(one: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """A joint (C,) on its way; where one of the frames does not show it, as the nearer one has it."""
    if one.any() and other.any():
        return one + share * (other - one)
    return other if share > 0.5 else one


@given(clips(), st.sampled_from(RATES), st.sampled_from(RATES))
@settings(max_examples=examples(300), deadline=None)
def test_agrees_with_a_plain_reference(clip, before, after):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        moved = resample(clip, before, after)
    assert (moved.name, moved.label, moved.camera) == ("a", 1, 2)
    step = Fraction(str(before)) / Fraction(str(after))
    assert moved.frames == (clip.frames - 1) // step + 1
    check_recording(moved, Facts("a", LAYOUT, after, ("x", "y")))
    wanted = [plain(track, clip.frames, before, after) for track in clip.tracks]
    wanted = [frames for frames in wanted if frames]
    assert len(moved.tracks) == len(wanted)
    for track, frames in zip(moved.tracks, wanted, strict=True):
        assert type(track.first_frame) is int
        assert track.x_tvc.dtype == np.float32
        assert (track.first_frame, track.first_frame + len(track.x_tvc) - 1) == (min(frames), max(frames))
        for place, x_vc in enumerate(track.x_tvc, track.first_frame):
            assert np.allclose(x_vc, frames.get(place, 0), atol=1e-4)
            assert x_vc.any() == (place in frames)


@given(clips(), st.sampled_from(RATES))
@settings(max_examples=50, deadline=None)
def test_there_and_back_is_the_same_at_twice_the_rate(clip, rate):
    back = resample(resample(clip, rate, 2 * rate), 2 * rate, rate)
    assert back.frames == clip.frames
    for one, other in zip(back.tracks, clip.tracks, strict=True):
        shown = np.flatnonzero(other.x_tvc.any(axis=(1, 2)))
        assert one.first_frame == other.first_frame + shown[0]
        assert np.array_equal(one.x_tvc, other.x_tvc[shown[0] : shown[-1] + 1])


@pytest.mark.parametrize(
    ("before", "after", "frames"), [(120, 30, 25), (30, 30, 100), (30, 29.97, 99), (29.97, 30, 100)]
)
def test_a_hundred_frames(before, after, frames):
    x_tvc = np.ones((100, len(LAYOUT.joints), 3), np.float32)
    moved = resample(Recording("a", 100, [Track(0, x_tvc)]), before, after)
    (track,) = moved.tracks
    assert (moved.frames, track.first_frame, len(track.x_tvc)) == (frames, 0, frames)


def test_a_body_between_two_new_frames_is_gone():
    flash = Track(1, np.ones((1, len(LAYOUT.joints), 3), np.float32))
    moved = resample(Recording("a", 9, [flash]), 30, 10)
    assert (moved.frames, list(moved.tracks)) == (3, [])
    assert resample(Recording("a", 0, []), 30, 10).frames == 0
