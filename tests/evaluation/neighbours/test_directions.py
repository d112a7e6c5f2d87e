import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.evaluation.neighbours.directions import Directions, Shifted, blocks, first_copies, ragged


def rows_of(seed: int, rows: int = 30, dim: int = 7) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, dim)) * rng.uniform(0.01, 100, (rows, 1))).astype(np.float32)


def whole(rows_nd: np.ndarray) -> list[list[int]]:
    """The unit vectors in whole numbers of 2^-26."""
    rows = rows_nd.astype(np.float64)
    norm_n = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.round(rows * (2.0**26 / np.where(norm_n > 0, norm_n, 1))).astype(int).tolist()


@given(st.integers(0, 2**31 - 1), st.integers(1, 700))
@settings(max_examples=25, deadline=None)
def test_a_cosine_is_the_exact_sum_of_products(seed, dim):
    one, other = rows_of(seed, 4, dim), rows_of(seed + 1, 5, dim)
    row_nc = np.random.default_rng(seed).integers(5, size=(4, 3))
    found = Directions(one).cosines_with(Directions(other), row_nc)
    a, b = whole(one), whole(other)
    for n, c in np.ndindex(4, 3):
        product = sum(x * y for x, y in zip(a[n], b[row_nc[n, c]], strict=True))
        assert found[n, c] == product / 2**52
    n_p = np.repeat(np.arange(4), 3)
    assert np.array_equal(Directions(one).cosines(Directions(other), n_p, row_nc.ravel()), found.ravel())
    true = np.sum(one[:, None].astype(float) * other[row_nc], axis=-1)
    true /= np.linalg.norm(one.astype(float), axis=1)[:, None]
    true /= np.linalg.norm(other.astype(float), axis=1)[row_nc]
    assert np.abs(found - true).max() < dim**0.5 * 2.0**-26


def test_products_are_exact_where_they_are_largest():
    """All numbers alike, and of one sign: no partial sum is larger in proportion."""
    for dim in (1, 2, 512, 9999):
        rows = np.full((2, dim), 0.1, np.float32)
        number = whole(rows)[0][0]
        assert (
            Directions(rows).cosines_with(Directions(rows), np.array([[1], [0]])).tolist()
            == [[dim * number**2 / 2**52]] * 2
        )


def test_rows_of_zeros_are_like_nothing():
    rows = np.zeros((2, 4), np.float32)
    rows[1] = 1
    assert Directions(rows).cosines_with(Directions(rows), np.array([[0, 1], [0, 1]])).tolist() == [
        [0, 0],
        [0, 1],
    ]


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_what_is_shifted_has_the_same_products(spread):
    rng = np.random.default_rng(0)
    rows = (np.ones(9) + spread * rng.normal(size=(40, 9))).astype(np.float32)
    rows[3] = 0
    directions = Directions(rows)
    a = Shifted(directions, directions.mean())
    a_nd = a.rows.double().numpy()
    every = np.tile(np.arange(40), (40, 1))
    expected = directions.cosines_with(directions, every)
    found = a.share[:, None] + a.share + a_nd @ a_nd.T
    assert np.abs(found - expected).max() < 1e-6 * a.norm.max() ** 2
    assert np.allclose(a.norm, np.linalg.norm(a_nd, axis=1))


def test_some_directions():
    directions = Directions(rows_of(0))
    place = np.array([5, 2, 5])
    assert torch.equal(directions.at(place).unit(slice(None)), directions.unit(place))
    assert torch.equal(directions.unit(place), directions.unit(slice(None))[place])
    assert (len(directions.at(place)), directions.dim) == (3, 7)
    assert torch.allclose(directions.mean(), directions.unit(slice(None)).mean(dim=0))


def test_first_copies():
    rows = np.array([[1, 2], [0.0, 1], [1, 2], [-0.0, 1], [2, 4], [1, 2]], np.float32)
    assert first_copies(rows).tolist() == [0, 1, 0, 1, 4, 0]


def test_blocks_share_out_all_rows():
    for rows, numbers in ((10, 0), (10, 1 << 18), (3, 1 << 30), (0, 5)):
        places = [place for part in blocks(rows, numbers) for place in range(part.start, part.stop)]
        assert places == list(range(rows))
    assert [part.stop - part.start for part in blocks(5, 1 << 18)] == [2, 2, 1]


def test_ragged_pieces():
    assert ragged(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert ragged(np.array([], np.int64), np.array([], np.int64)).tolist() == []
