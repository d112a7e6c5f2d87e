import numpy as np
import pytest
from builders import seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.bodies import is_wide, motion, persons

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
