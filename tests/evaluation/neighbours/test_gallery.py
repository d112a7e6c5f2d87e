import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.neighbours import gallery as module
from ssl_skeleton.evaluation.neighbours.bf16_index import Bf16Index
from ssl_skeleton.evaluation.neighbours.directions import Directions
from ssl_skeleton.evaluation.neighbours.gallery import Gallery, Neighbours, is_exact, nearest_others, recall
from ssl_skeleton.evaluation.neighbours.indexes import EXACT, FlatIndex, HnswConfig, IvfConfig

Rows = np.ndarray


@pytest.fixture(params=["float32", "bfloat16"])
def first_look(request, monkeypatch):
    """With and without a first look in bfloat16, which any processor can take, but slowly."""
    used = request.param == "bfloat16"
    monkeypatch.setattr(module, "is_fast", lambda: used)
    monkeypatch.setattr(module, "_LARGE", 1)
    monkeypatch.setattr(Bf16Index, "most", property(lambda self: self._groups))
    return used


def drawn(seed: int, rows: int, dim: int = 6, *, copies: float = 0.0, spread: float = 1.0) -> Rows:
    """Rows about a common direction, of which a share are copies of others."""
    rng = np.random.default_rng(seed)
    rows_nd = (np.ones(dim) / dim**0.5 + spread * rng.normal(size=(rows, dim))).astype(np.float32)
    many = rng.random(rows) < copies
    rows_nd[many] = rows_nd[rng.integers(max(1, rows // 8), size=many.sum())]
    return rows_nd


def by_loops(gallery: Rows, queries: Rows, k: int) -> Neighbours:
    """Neighbours by whole numbers of 2^-26, which Python adds without rounding, row after row."""
    whole = []
    for rows in (gallery, queries):
        norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        whole.append(np.round(rows * (2.0**26 / np.where(norms > 0, norms, 1))).astype(int).tolist())
    found, likeness = [], []
    for query in whole[1]:
        product = [sum(a * b for a, b in zip(query, row, strict=True)) for row in whole[0]]
        nearest = sorted(range(len(product)), key=lambda row: (-product[row], row))[:k]
        found.append(nearest)
        likeness.append([product[row] / 2**52 for row in nearest])
    return Neighbours(np.array(found), np.array(likeness))


def same(one: Neighbours, other: Neighbours) -> bool:
    return np.array_equal(one.rows, other.rows) and np.array_equal(one.likeness, other.likeness)


@pytest.mark.usefixtures("first_look")
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_neighbours_are_those_found_by_loops(data):
    rows, seed = data.draw(st.integers(1, 90)), data.draw(st.integers(0, 2**31 - 1))
    k, copies = data.draw(st.integers(1, rows)), data.draw(st.sampled_from([0.0, 0.6, 1.0]))
    spread = data.draw(st.sampled_from([1.0, 1e-2, 1e-5]))
    gallery = drawn(seed, rows, copies=copies, spread=spread)
    queries = np.concatenate([drawn(seed + 1, 12, spread=spread), gallery[:5], np.zeros((2, 6), np.float32)])
    if data.draw(st.booleans()):
        gallery[rows // 2] = 0
    assert same(Gallery(gallery).nearest(queries, k), by_loops(gallery, queries, k))


@pytest.mark.usefixtures("first_look")
def test_neighbours_in_a_large_gallery():
    """So large that most rows are never looked at a second time."""
    gallery, queries = drawn(0, 3000, 24, copies=0.1), drawn(1, 30, 24)
    found = Gallery(gallery).nearest(queries, 10)
    cosine = queries.astype(float) @ gallery.astype(float).T
    cosine /= np.linalg.norm(queries.astype(float), axis=1)[:, None] * np.linalg.norm(gallery, axis=1)
    for n, (rows, likeness) in enumerate(zip(found.rows, found.likeness, strict=True)):
        assert np.abs(likeness - cosine[n, rows]).max() < 1e-7
        assert cosine[n, rows[-1]] >= np.sort(cosine[n])[-10] - 1e-7
        assert len(set(rows)) == 10
    assert same(found, by_loops(gallery, queries, 10))


@pytest.mark.usefixtures("first_look")
@pytest.mark.parametrize("seed", range(3))
def test_neither_order_nor_batches_nor_threads_make_a_difference(seed):
    gallery, queries = drawn(seed, 400, 64, copies=0.5), drawn(seed + 9, 60, 64, copies=0.3)
    expected, order = Gallery(gallery).nearest(queries, 7), np.random.default_rng(seed).permutation(60)
    assert same(Gallery(gallery).nearest(queries[order], 7), expected.at(order))
    alone = [Gallery(gallery).nearest(queries[n : n + 1], 7) for n in range(60)]
    assert all(same(one, expected.at(np.array([n]))) for n, one in enumerate(alone))
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            faiss.omp_set_num_threads(threads)
            assert same(Gallery(gallery).nearest(queries, 7), expected)
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])


@pytest.mark.usefixtures("first_look")
def test_the_order_of_rows_makes_no_difference_but_to_copies():
    gallery, queries = drawn(0, 300, 16), drawn(1, 40, 16)
    order = np.random.default_rng(2).permutation(300)
    expected, found = Gallery(gallery).nearest(queries, 9), Gallery(gallery[order]).nearest(queries, 9)
    assert np.array_equal(order[found.rows], expected.rows)
    assert np.array_equal(found.likeness, expected.likeness)
    doubled = Gallery(np.concatenate([gallery, gallery[order]])).nearest(queries, 10)
    assert np.array_equal(doubled.rows[:, ::2], expected.rows[:, :5])
    assert np.array_equal(order[doubled.rows[:, 1::2] - 300], expected.rows[:, :5])


@pytest.mark.usefixtures("first_look")
@pytest.mark.parametrize("rows", [np.ones((50, 8)), np.zeros((50, 8)), np.eye(50)])
def test_where_all_are_equally_near_the_first_rows_come_first(rows):
    rows = rows.astype(np.float32)
    away = np.ones((1, rows.shape[1]), np.float32)
    assert Gallery(rows).nearest(away, 5).rows.tolist() == [[0, 1, 2, 3, 4]]
    others = nearest_others(rows, 3).rows
    assert others[:5].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]]


@given(st.integers(0, 2**31 - 1), st.integers(1, 5), st.sampled_from([0.0, 0.7]))
@settings(max_examples=25, deadline=None)
def test_others_are_all_but_the_row_itself(seed, k, copies):
    rows = drawn(seed, 20, copies=copies)
    found = nearest_others(rows, k)
    for n in range(20):
        others = np.delete(np.arange(20), n)
        expected = by_loops(rows[others], rows[n : n + 1], k)
        assert found.rows[n].tolist() == others[expected.rows[0]].tolist()
        assert np.array_equal(found.likeness[n], expected.likeness[0])


@pytest.mark.parametrize("index", [FlatIndex, Bf16Index])
@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-4])
def test_the_bounds_of_an_index_hold(index, spread):
    gallery, queries = (Directions(drawn(seed, 500, 48, spread=spread)) for seed in (0, 1))
    near = index(gallery).search(queries, 12)
    every = np.tile(np.arange(500), (500, 1))
    cosine = queries.cosines_with(gallery, every)
    assert (np.diff(near.most, axis=1) <= 0).all()
    assert (np.take_along_axis(cosine, near.rows, axis=1) <= near.most).all()
    left = cosine.copy()
    np.put_along_axis(left, near.rows, -np.inf, axis=1)
    assert (left.max(axis=1) <= near.most[:, -1]).all()
    width = (near.most - np.take_along_axis(cosine, near.rows, axis=1)).max()
    apart = min(1, 48 * spread**2)  # the squared length of what a direction differs from their mean by
    assert 0 < width < (0.03 if index is Bf16Index else 1e-5) * apart


def test_an_index_that_searches_all_cells_is_exact():
    gallery, queries = drawn(0, 200, copies=0.3), drawn(1, 50)
    expected = Gallery(gallery).nearest(queries, 6)
    assert same(Gallery(gallery, IvfConfig(nlist=9, nprobe=9)).nearest(queries, 6), expected)
    assert same(Gallery(gallery, IvfConfig(nprobe=500)).nearest(queries, 6), expected)


@pytest.mark.parametrize("index", [IvfConfig(nlist=20, nprobe=2), HnswConfig(m=4, ef_search=4)])
def test_an_index_that_is_not_exact_finds_the_same_every_time(index):
    gallery, queries = drawn(0, 900, 16), drawn(1, 80, 16)
    exact, found = Gallery(gallery).nearest(queries, 4), Gallery(gallery, index).nearest(queries, 4)
    share = np.mean([len(set(a) & set(b)) for a, b in zip(found.rows, exact.rows, strict=True)]) / 4
    assert 0.3 < recall(found, exact) == pytest.approx(share)
    alone = [Gallery(gallery, index).nearest(queries[n : n + 1], 4).rows[0] for n in range(0, 80, 7)]
    assert np.array_equal(np.array(alone), found.rows[::7])
    before = faiss.omp_get_max_threads()
    try:
        for threads in (1, 3):
            faiss.omp_set_num_threads(threads)
            assert same(Gallery(gallery, index).nearest(queries, 4), found)
            assert faiss.omp_get_max_threads() == threads
    finally:
        faiss.omp_set_num_threads(before)
    assert (np.diff(found.likeness, axis=1) <= 0).all()


def test_one_cell_of_many_misses_neighbours():
    gallery, queries = drawn(0, 600, 16), drawn(1, 80, 16)
    exact = Gallery(gallery).nearest(queries, 4)
    few, more = (Gallery(gallery, IvfConfig(nlist=60, nprobe=n)).nearest(queries, 4) for n in (1, 20))
    assert recall(few, exact) < recall(more, exact) <= recall(exact, exact) == 1


def test_where_cells_hold_too_few_all_rows_are_searched():
    gallery, queries = drawn(0, 60), drawn(1, 20)
    expected = Gallery(gallery).nearest(queries, 55)
    assert same(Gallery(gallery, IvfConfig(nlist=30, nprobe=1)).nearest(queries, 55), expected)


def test_more_cells_than_rows_are_refused():
    gallery = np.concatenate([drawn(0, 30)] * 2)
    assert len(Gallery(gallery, IvfConfig(nlist=30))) == 60
    with pytest.raises(UserError, match=r"index.nlist: 31 cells are more than the 30 different rows"):
        Gallery(gallery, IvfConfig(nlist=31))


def test_recall_counts_what_is_as_near():
    exact = Neighbours(np.array([[1, 2], [3, 4]]), np.array([[0.9, 0.8], [0.7, 0.6]]))
    found = Neighbours(np.array([[1, 5], [4, 6]]), np.array([[0.9, 0.8], [0.6, 0.5]]))
    assert recall(found, exact) == 0.75


def test_which_indexes_are_exact():
    assert is_exact(EXACT)
    assert not is_exact(IvfConfig())
    assert not is_exact(HnswConfig())


def test_rows_are_left_as_they_are():
    gallery, queries = drawn(0, 30), drawn(1, 9)
    before = gallery.copy(), queries.copy()
    Gallery(gallery).nearest(queries, 3)
    assert np.array_equal(gallery, before[0])
    assert np.array_equal(queries, before[1])
