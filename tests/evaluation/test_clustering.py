import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.clustering import (
    ClusterConfig,
    cluster_probe,
    clustering_scores,
    k_means,
    starts,
)

CLASSES = 4
FAST = ClusterConfig(restarts=3)
seeds = st.integers(0, 999)


def blobs(seed: int, clips: int = 40, dim: int = 6, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Rows (N, D) around one direction a class, of any length, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(clips) % CLASSES
    rows = np.eye(dim)[labels] + rng.normal(scale=spread, size=(clips, dim))
    return (rows * rng.uniform(0.1, 9, (clips, 1))).astype(np.float32), labels


def labelings(most: int = 4) -> st.SearchStrategy:
    """How many clusters and classes there are, and those of some clips."""

    @st.composite
    def draw(draw):
        clusters, classes = draw(st.integers(1, most)), draw(st.integers(1, most))
        clips = draw(st.integers(1, 30))
        rng = np.random.default_rng(draw(seeds))
        return rng.integers(clusters, size=clips), rng.integers(classes, size=clips), clusters, classes

    return draw()


def entropy(*sides: np.ndarray) -> float:
    """Of the groups that clips are in when they go by all sides together, in nats."""
    _, counts = np.unique(np.stack(sides), axis=1, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log(share)).sum())


def textbook(assigned: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """NMI from entropies; ARI from every pair of clips, one by one (Hubert and Arabie 1985)."""
    mean = (entropy(assigned) + entropy(labels)) / 2
    mutual = entropy(assigned) + entropy(labels) - entropy(assigned, labels)
    pairs = [
        (assigned[one] == assigned[other], labels[one] == labels[other])
        for one, other in itertools.combinations(range(len(labels)), 2)
    ]
    both, one, other = (sum(map(test, pairs)) for test in (all, lambda p: p[0], lambda p: p[1]))
    chance, most = one * other / max(1, len(pairs)), (one + other) / 2
    return mutual / mean if mean else 1.0, (both - chance) / (most - chance) if most != chance else 1.0


@given(labelings(9))
def test_scores_are_those_of_the_textbook(case):
    assigned, labels, *counts = case
    scores = clustering_scores(assigned, labels, *counts)
    nmi, ari = textbook(assigned, labels)
    assert scores["nmi"] == pytest.approx(nmi, abs=1e-9)
    assert scores["ari"] == pytest.approx(ari, abs=1e-9)


@given(labelings())
def test_accuracy_is_the_best_of_all_matchings(case):
    assigned, labels, clusters, classes = case
    names = range(max(clusters, classes))  # some clusters may have no class, and some classes no cluster
    best = max((np.array(order)[assigned] == labels).mean() for order in itertools.permutations(names))
    scores = clustering_scores(assigned, labels, clusters, classes)
    assert scores["accuracy"] == pytest.approx(best)
    pure = sum(max(np.bincount(labels[assigned == cluster])) for cluster in set(assigned.tolist()))
    assert scores["purity"] == pytest.approx(pure / len(labels))
    assert 0 <= scores["nmi"] <= 1 + 1e-12
    assert scores["accuracy"] <= scores["purity"] + 1e-12


@given(labelings(), seeds)
def test_no_name_counts(case, seed):
    assigned, labels, clusters, classes = case
    rng = np.random.default_rng(seed)
    renamed = rng.permutation(clusters)[assigned], rng.permutation(classes)[labels]
    expected = clustering_scores(assigned, labels, clusters, classes)
    assert clustering_scores(*renamed, clusters, classes) == pytest.approx(expected)


def test_very_many_pairs_do_not_overflow():
    assigned = np.zeros(3_000_000, np.int64)
    assigned[::2] = 1
    assert clustering_scores(assigned, assigned, 2, 2)["ari"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_clear_clusters_are_found_whatever_the_length_of_features(seed):
    rows, labels = blobs(seed)
    scores = cluster_probe(rows, CLASSES, FAST, seed)(labels)
    assert {scores[name] for name in ("accuracy", "nmi", "ari", "purity")} == {1.0}
    assert (scores["clusters"], len(scores["assigned"])) == (CLASSES, len(labels))


@settings(max_examples=15, deadline=None)
@given(seeds)
def test_a_rotation_of_features_changes_nothing(seed):
    rows, _ = blobs(seed, clips=80, spread=0.25)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    turn = ortho_group.rvs(unit.shape[1], random_state=seed)
    turned = (unit.astype(np.float64) @ turn).astype(np.float32)
    one, other = (k_means(each, CLASSES, ClusterConfig(), 0) for each in (unit, turned))
    assert one[1] == pytest.approx(other[1], rel=1e-4)
    assert adjusted_rand_score(one[0], other[0]) > 0.95  # a row between two clusters may go to either


@settings(max_examples=10, deadline=None)
@given(seeds)
def test_it_is_as_good_as_scikit_learn(seed):
    rows, _ = blobs(seed, clips=60, spread=0.2)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    judge = KMeans(CLASSES, n_init=10, random_state=0).fit(rows)
    assigned, inertia = k_means(rows, CLASSES, ClusterConfig(), seed)
    assert inertia == pytest.approx(judge.inertia_ / len(rows), rel=1e-3)
    assert adjusted_rand_score(assigned, judge.labels_) > 0.9


def test_all_rows_count_and_nothing_is_said(capfd):
    """By itself, faiss would take 256 rows a cluster, and warn where there are fewer than 39."""
    rows, _ = blobs(0, clips=3000, spread=0.2)
    for some, clusters in ((rows, CLASSES), (rows[:20], 7)):
        assigned, inertia = k_means(some, clusters, FAST, 0)
        groups = [some[assigned == cluster].astype(np.float64) for cluster in range(clusters)]
        squares = sum(((group - group.mean(axis=0)) ** 2).sum() for group in groups)
        assert inertia == pytest.approx(squares / len(some), rel=1e-5)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("seed", range(3))
def test_one_seed_has_one_answer_and_more_restarts_are_no_worse(seed):
    rows, _ = blobs(seed, clips=100, spread=0.6)
    found = [k_means(rows, 9, ClusterConfig(restarts=count), seed) for count in (1, 2, 5, 5)]
    assert found[2][1] == found[3][1]
    assert np.array_equal(found[2][0], found[3][0])
    assert found[0][1] >= found[1][1] >= found[2][1]


def test_labels_change_the_score_alone():
    rows, labels = blobs(1)
    score = cluster_probe(rows, CLASSES, FAST, 0)
    plain, poisoned = score(labels), score((labels * labels + 1) % CLASSES)
    assert plain["assigned"] == poisoned["assigned"]
    assert plain["inertia"] == poisoned["inertia"]
    assert plain["nmi"] != poisoned["nmi"]
    assert score(labels) == plain


def test_starts_are_far_from_each_other():
    rows = np.eye(5, dtype=np.float32)[[0] * 50 + [1, 2]]
    for seed in range(5):
        found = starts(rows, 3, np.random.default_rng(seed))
        assert sorted(found.argmax(axis=1).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("row", [[0.0, 0.0], [3.0, 4.0]])
def test_clips_that_are_all_the_same(row):
    rows = np.array([row] * 6, np.float32)
    assigned, inertia = k_means(rows, 3, FAST, 0)
    assert set(assigned.tolist()) <= {0, 1, 2}
    assert inertia == pytest.approx(0, abs=1e-6)


def test_as_many_clusters_as_clips():
    rows, labels = blobs(0, clips=10)
    scores = cluster_probe(rows, CLASSES, ClusterConfig(clusters=10), 0)(labels)
    assert (len(set(scores["assigned"])), scores["purity"], scores["accuracy"]) == (10, 1.0, 0.4)


@pytest.mark.parametrize("change", [{"clusters": 11}, {"clusters": 25, "part": "train"}])
def test_more_clusters_than_clips_are_refused(change):
    config = ClusterConfig(**change)
    with pytest.raises(UserError, match=r"evaluation\.cluster\.clusters: \d+ of 10 clips .* fewer clusters"):
        cluster_probe(blobs(0, clips=10)[0], CLASSES, config, 0)


@pytest.mark.parametrize("label", [0, 3])
def test_one_class_is_refused(label):
    rows, labels = blobs(0, clips=10)
    score = cluster_probe(rows, CLASSES, FAST, 0)
    with pytest.raises(UserError, match=r"the 10 clips of 'test' are of one class"):
        score(np.full_like(labels, label))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"clusters": 1}, "clusters: "),
        ({"restarts": 0}, "restarts: "),
        ({"part": "tset"}, "part: 'tset' is not possible; did you mean 'test'"),
        ({"cluster": 3}, "unknown key 'cluster'; did you mean 'clusters'"),
    ],
)
def test_mistakes_are_named(tree, message):
    with pytest.raises(UserError, match=message):
        ClusterConfig.from_tree(tree, "evaluation.cluster")
