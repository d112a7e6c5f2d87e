import tracemalloc

import faiss
import numpy as np
import pytest
from builders import examples, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.evaluation.neighbours.indexes import HnswConfig
from ssl_skeleton.evaluation.search.ways import WAYS, Cells, Exact, Graph, nearest, unit_rows

ALL = 10**9


def rows_of(clips: int, dim: int, seed: int = 0, clusters: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(clips, dim))
    if clusters:
        rows = 0.3 * rows + rng.normal(size=(clusters, dim))[rng.integers(clusters, size=clips)]
    return rows.astype(np.float32)


def textbook(gallery: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the largest cosines in float64, to six decimals; a stable sort leaves ties in order."""
    rows, likeness = [], []
    for query in queries.astype(np.float64):
        norms = np.linalg.norm(gallery.astype(np.float64), axis=1) * np.linalg.norm(query)
        dots = gallery.astype(np.float64) @ query
        cosine = np.round(np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0), 6)
        best = sorted(range(len(gallery)), key=lambda row: (-cosine[row], row))[:k]
        rows.append(best)
        likeness.append(cosine[best])
    return np.array(rows), np.array(likeness)


@settings(max_examples=examples(60), deadline=None)
@given(seed=seeds, clips=st.integers(1, 40), dim=st.integers(1, 9), data=st.data())
def test_exact_is_the_textbook(seed, clips, dim, data):
    """Rows have lengths of all kinds; some are zero, some are copies of others or point the other way."""
    rng = np.random.default_rng(seed)
    gallery = rows_of(clips, dim, seed) * 10.0 ** rng.integers(-6, 6, size=(clips, 1))
    source = rng.integers(clips, size=clips)
    gallery = np.where(
        rng.random((clips, 1)) < 0.3, gallery[source] * rng.choice([-2, 0, 1, 2], (clips, 1)), gallery
    )
    gallery = gallery.astype(np.float32)
    queries = np.concatenate([gallery[rng.integers(clips, size=2)], rows_of(2, dim, seed + 1)])
    k = data.draw(st.integers(1, clips))
    found, likeness = nearest(Exact(), unit_rows(gallery), queries, k, 1)
    _, cosine = textbook(gallery, queries, k)
    assert np.allclose(likeness, cosine, atol=2e-6)
    for query, rows, near in zip(queries, found.tolist(), likeness, strict=True):
        assert len(set(rows)) == k
        _, own = textbook(gallery[rows], query[None], k)
        assert np.allclose(np.sort(near), np.sort(own[0]), atol=2e-6)
        assert all(
            (one, row) < (other, after)
            for one, row, other, after in zip(-near, rows, -near[1:], rows[1:], strict=False)
        )


def test_copies_come_in_the_order_of_their_rows():
    gallery = unit_rows(np.repeat(rows_of(4, 300), 50, axis=0)[np.random.default_rng(0).permutation(200)])
    for k in (1, 7, 50, 51, 120, 200):
        found, likeness = nearest(Exact(), gallery, gallery[:3], k, 1)
        for query, rows, near in zip(gallery[:3], found, likeness, strict=True):
            copies = np.flatnonzero((gallery == query).all(axis=1))
            assert rows[: min(k, 50)].tolist() == copies[:k].tolist()
            assert (near[: min(k, 50)] == 1).all()
            assert all((np.diff(rows[near == value]) > 0).all() for value in np.unique(near))


def test_all_the_same_and_all_zero():
    for gallery in (np.ones((30, 5), np.float32), np.zeros((30, 5), np.float32)):
        for kind in WAYS.values():
            way = kind.build(unit_rows(gallery))
            found, likeness = nearest(way, unit_rows(gallery), gallery[:2], 4, way.effort)
            assert (likeness == gallery.max()).all()
            assert all(len(set(rows)) == 4 for rows in found.tolist())
            if kind is Exact:
                assert found.tolist() == [[0, 1, 2, 3]] * 2


def test_blocks_change_nothing(monkeypatch):
    gallery, queries = unit_rows(rows_of(100, 8)), rows_of(9, 8, 1)
    expected = nearest(Exact(), gallery, queries, 7, 1)
    monkeypatch.setattr("ssl_skeleton.data.store._BLOCK", 13)
    monkeypatch.setattr("ssl_skeleton.evaluation.search.ways._AT_ONCE", 250)
    found = nearest(Exact(), gallery, queries, 7, 1)
    assert [one.tolist() for one in found] == [other.tolist() for other in expected]


def test_many_that_are_equally_near_are_not_in_memory_at_once(monkeypatch):
    """As of an encoder that gives all clips the same features."""
    gallery = unit_rows(np.ones((20_000, 64), np.float32))
    monkeypatch.setattr("ssl_skeleton.data.store._BLOCK", 1000)
    tracemalloc.start()
    nearest(Exact(), gallery, gallery[:1], 3, 1)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < gallery.nbytes


@pytest.mark.parametrize("clips", [1, 2, 39, 400])
@pytest.mark.parametrize("kind", [Cells, Graph])
def test_enough_effort_finds_everything(kind, clips):
    gallery, queries = unit_rows(rows_of(clips, 6, clips)), rows_of(20, 6, 7)
    way = kind.build(gallery)
    assert way.fault(clips, 6) is None
    k = min(10, clips)
    found, likeness = nearest(way, gallery, queries, k, ALL)
    exact, cosine = nearest(Exact(), gallery, queries, k, 1)
    assert (found == exact).mean() > (0.999 if kind is Cells else 0.98)  # a graph need not be connected
    assert np.abs(likeness - cosine).max() <= (0 if kind is Cells else 0.1)


@pytest.mark.parametrize("kind", [Cells, Graph])
def test_the_usual_effort_finds_most(kind):
    gallery, queries = np.split(unit_rows(rows_of(4100, 16, clusters=40)), [4000])
    way = kind.build(gallery)
    exact, _ = nearest(Exact(), gallery, queries, 10, 1)
    hits = []
    for effort in (1, way.effort):
        found, likeness = nearest(way, gallery, queries, 10, effort)
        assert (np.diff(likeness) <= 0).all()
        hits.append(np.mean([np.isin(one, other).mean() for one, other in zip(found, exact, strict=True)]))
    assert hits[0] < hits[1] > 0.9


def test_the_graph_is_searched_as_faiss_searches_it():
    gallery, queries = unit_rows(rows_of(3000, 12, clusters=30)), unit_rows(rows_of(50, 12, clusters=30))
    config = HnswConfig()
    index = faiss.IndexHNSWFlat(12, config.m)
    index.hnsw.efConstruction, index.hnsw.efSearch = config.ef_construction, 64
    faiss.omp_set_num_threads(1)
    index.add(gallery)
    expected = index.search(queries, 64)[1]
    graph = Graph.build(gallery)
    for query, rows in zip(queries, expected.tolist(), strict=True):
        found = next(graph.near(gallery, query[None], 64, 64))
        assert (
            len(set(rows) & set(found.tolist())) >= 62
        )  # of equally near ones, one may be kept or the other


def test_a_query_wants_more_than_its_cells_or_links_give():
    gallery = unit_rows(rows_of(500, 4))
    lonely = Graph(np.array([0, 0, 4]), np.zeros(501, np.int64), np.zeros(0, np.int32))
    assert lonely.fault(500, 4) is None
    for way in (Cells.build(gallery), lonely):
        found, _ = nearest(way, gallery, gallery[:5], 500, 1)
        assert [sorted(rows) for rows in found.tolist()] == [list(range(500))] * 5


def cells() -> dict:
    return Cells.build(unit_rows(rows_of(90, 3))).arrays


def graph() -> dict:
    return Graph.build(unit_rows(rows_of(90, 3))).arrays


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("order", lambda x: x[:-1], "do not fit"),
        ("order", lambda x: x.astype(np.int32), "order is of <i4 with 1 axes, not of <i8 with 1"),
        ("order", lambda x: np.where(x == 5, 6, x), "order does not name every row once"),
        ("order", lambda x: np.where(x == 5, -1, x), "order does not name every row once"),
        ("order", lambda x: np.where(x == 5, 2**62, x), "order does not name every row once"),
        ("begins", lambda x: x[:0], "do not fit"),
        ("begins", lambda x: x[None], "begins is of <i8 with 2 axes"),
        ("begins", lambda x: x + 1, "begins does not share out"),
        ("begins", lambda x: np.where(np.arange(len(x)) == 1, -(2**63), x), "begins does not share out"),
        ("begins", lambda x: np.where(np.arange(len(x)) == 1, 2**63 - 1, x), "begins does not share out"),
        ("centroids", lambda x: x[:, :2], "do not fit"),
        ("centroids", lambda x: x * np.float32(np.nan), "a centroid is no mean of vectors"),
        ("centroids", lambda x: np.full_like(x, 1e38), "a centroid is no mean of vectors"),
    ],
)
def test_cells_that_cannot_be(name, change, fault):
    arrays = cells()
    assert fault in Cells(**arrays | {name: change(arrays[name])}).fault(90, 3)


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        ("start", lambda x: x[:2], "do not fit"),
        ("start", lambda x: x * [0, 1, 0], "start names"),
        ("start", lambda x: np.array([90, 0, 32]), "start names"),
        ("start", lambda x: np.array([-1, 0, 32]), "start names"),
        ("start", lambda x: np.array([0, 2**62, 32]), "start names"),
        ("start", lambda x: np.array([0, 0, 2**62]), "start names"),
        ("offsets", lambda x: x[:-1], "do not fit"),
        ("offsets", lambda x: x - 1, "offsets do not share out"),
        ("offsets", lambda x: np.where(np.arange(len(x)) == 3, -(2**63), x), "offsets do not share out"),
        ("links", lambda x: x[:-1], "offsets do not share out"),
        ("links", lambda x: x.astype(np.int64), "links is of <i8"),
    ],
)
def test_a_graph_that_cannot_be(name, change, fault):
    arrays = graph()
    assert fault in Graph(**arrays | {name: change(arrays[name])}).fault(90, 3)


@settings(max_examples=examples(60), deadline=None)
@given(seed=seeds, levels=st.integers(0, 63), links=st.integers(1, 4095))
def test_any_graph_without_a_fault_is_searched_to_an_end(seed, levels, links):
    """What a stranger's links say is no danger: all answers are rows, each once."""
    rng = np.random.default_rng(seed)
    offsets = np.sort(rng.integers(0, 400, size=41))
    offsets[0], offsets[-1] = 0, 400
    wild = rng.choice([-(2**31), -1, 0, 5, 39, 40, 2**31 - 1, *rng.integers(40, size=9)], size=400)
    way = Graph(np.array([rng.integers(40), levels, links]), offsets, wild.astype(np.int32))
    assert way.fault(40, 3) is None
    gallery = unit_rows(rows_of(40, 3, seed))
    found, _ = nearest(way, gallery, gallery[:4], 6, 8)
    assert all(len(set(rows)) == 6 and set(rows) <= set(range(40)) for rows in found.tolist())


def test_unit_rows():
    rows = np.array([[3e-30, 4e-30], [3e30, -4e30], [0, 0]], np.float32)
    assert np.allclose(unit_rows(rows), [[0.6, 0.8], [0.6, -0.8], [0, 0]], atol=1e-6)
    assert unit_rows(rows).dtype == np.float32
