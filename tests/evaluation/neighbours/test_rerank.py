import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.neighbours import rerank as module
from ssl_skeleton.evaluation.neighbours.gallery import Neighbours
from ssl_skeleton.evaluation.neighbours.indexes import IvfConfig
from ssl_skeleton.evaluation.neighbours.rerank import (
    ReciprocalConfig,
    reciprocal_sets,
    reranked,
    reranked_others,
)


def clusters(seed: int, rows: int, dim: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(77).normal(size=(4, dim))
    return (centres[rng.integers(4, size=rows)] + 0.4 * rng.normal(size=(rows, dim))).astype(np.float32)


def textbook(rows: np.ndarray, config: ReciprocalConfig) -> np.ndarray:
    """The final distances (A, A) of the paper, by sets and dense matrices; a clip is its own neighbour."""
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    order = []
    for a in range(len(rows)):
        others = [b for b in np.argsort(distance[a], kind="stable").tolist() if b != a]
        order.append([a, *others])
    k1 = min(config.k1, len(rows) - 1)

    def mutual(a: int, k: int) -> set[int]:
        return {b for b in order[a][: k + 1] if a in order[b][: k + 1]}

    encoding = np.zeros_like(distance)
    for a in range(len(rows)):
        own = mutual(a, k1)
        grown = set(own)
        for b in own:
            candidates = mutual(b, (k1 + 1) // 2)
            if len(own & candidates) >= 2 / 3 * len(candidates):
                grown |= candidates
        for b in grown:
            encoding[a, b] = np.exp(-distance[a, b])
    k2 = min(config.k2, len(rows) - 1)
    encoding = np.array([encoding[order[a][: k2 + 1]].mean(axis=0) for a in range(len(rows))])
    least = np.minimum(encoding[:, None], encoding).sum(axis=-1)
    most = np.maximum(encoding[:, None], encoding).sum(axis=-1)
    return (1 - config.own) * (1 - least / most) + config.own * distance


def nearest(distance: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(distance.round(8), axis=1, kind="stable")[:, :k]


def assert_agree(found: Neighbours, distance: np.ndarray) -> None:
    """The neighbours are the nearest by these distances, where these tell them apart."""
    expected = np.sort(distance, axis=1)[:, : found.rows.shape[1]]
    assert np.abs(1 - found.likeness - expected).max() < 1e-6
    assert np.abs(np.take_along_axis(distance, found.rows, axis=1) - expected).max() < 1e-6
    assert all(len(set(row)) == len(row) for row in found.rows.tolist())


CONFIGS = st.builds(
    ReciprocalConfig,
    k1=st.integers(1, 12),
    k2=st.integers(0, 5),
    own=st.sampled_from([0.0, 0.3, 1.0]),
)


@given(st.integers(0, 2**31 - 1), CONFIGS, st.integers(1, 25))
@settings(max_examples=30, deadline=None)
def test_it_is_the_papers(seed, config, k):
    gallery, queries = clusters(seed, 25), clusters(seed + 1, 8)
    distance = textbook(np.concatenate([gallery, queries]), config)[25:, :25]
    assert_agree(reranked(gallery, queries, k, config), distance)


@given(st.integers(0, 2**31 - 1), CONFIGS, st.integers(1, 19))
@settings(max_examples=30, deadline=None)
def test_others_are_ranked_without_the_clip_itself(seed, config, k):
    rows = clusters(seed, 20)
    distance = textbook(rows, config)
    np.fill_diagonal(distance, np.inf)
    found = reranked_others(rows, k, config)
    assert (found.rows != np.arange(20)[:, None]).all()
    assert_agree(found, distance)


def test_the_published_values():
    config = ReciprocalConfig()
    assert (config.k1, config.k2, config.own) == (20, 6, 0.3)
    rows = clusters(0, 90)
    assert_agree(reranked(rows[:60], rows[60:], 15, config), textbook(rows, config)[60:, :60])


def test_blocks_make_no_difference(monkeypatch):
    rows, config = clusters(3, 90), ReciprocalConfig(k1=9)
    expected = reranked(rows[:60], rows[60:], 15, config)
    monkeypatch.setattr(module, "_BLOCK", 100)
    found = reranked(rows[:60], rows[60:], 15, config)
    assert np.array_equal(found.rows, expected.rows)
    assert np.array_equal(found.likeness, expected.likeness)


def test_with_all_of_the_own_distance_nothing_changes():
    rows = clusters(5, 40)
    found = reranked(rows[:30], rows[30:], 30, ReciprocalConfig(own=1))
    unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    assert np.array_equal(found.rows, nearest(1 - unit[30:] @ unit[:30].T, 30))


def test_reciprocal_sets_of_a_chain():
    """Four clips on a line: 0 - 1 - - 2 - 3."""
    near = np.array([[1, 2], [0, 2], [3, 1], [2, 1]])
    found = reciprocal_sets(near).toarray()
    assert found.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]


def test_too_large_encodings_are_refused(monkeypatch):
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"rerank: the encodings of 90 clips could take .* go without"):
        reranked_others(clusters(0, 90), 3, ReciprocalConfig())


def test_an_index_proposes_the_neighbours():
    rows, config = clusters(1, 60), ReciprocalConfig(k1=5)
    expected = reranked(rows[:50], rows[50:], 4, config)
    found = reranked(rows[:50], rows[50:], 4, config, IvfConfig(nlist=5, nprobe=5))
    assert np.array_equal(found.rows, expected.rows)
