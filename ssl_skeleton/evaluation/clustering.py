"""Clustering: k-means on frozen features, and how well its clusters agree with the classes."""

from typing import Literal

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from ssl_skeleton.config import Config
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.scores import Labels, Scorer, Scores
from ssl_skeleton.training.seeds import derive_seed

Part = Literal["test", "train", "all"]


class ClusterConfig(Config):
    """What is clustered, and how.

    part        the clips: those of the test part, of the training part, or of all parts together
    clusters    how many; null is as many as the store has classes
    restarts    k-means is done so often, and that with the smallest sum of squares counts
    iterations  of each
    """

    part: Part = "test"
    clusters: int | None = Field(default=None, ge=2)
    restarts: int = Field(default=10, ge=1)
    iterations: int = Field(default=50, ge=1)

    @property
    def evaluator(self) -> str:
        """What its results are called, as cluster_all_20: of other clips or clusters there are others."""
        part = "" if self.part == "test" else f"_{self.part}"
        return f"cluster{part}" + (f"_{self.clusters}" if self.clusters else "")


def cluster_probe(rows_nd: NDArray[np.float32], classes: int, config: ClusterConfig, seed: int) -> Scorer:
    """The clusters of a part's clips (N, D), which wait for their labels; UserError when there are too few.

    With the scores stand the number of `clusters`, the cluster of every clip under `assigned`, and the
    `inertia`, the mean squared distance of the clips' unit features to the means of their clusters.
    """
    unit_nd, clusters = _unit(rows_nd), config.clusters or classes
    if clusters > len(unit_nd):
        raise UserError(
            f"evaluation.cluster.clusters: {clusters} of {len(unit_nd)} clips (evaluation.cluster.part: "
            f"{config.part}); choose fewer clusters, or more clips"
        )
    assigned, inertia = k_means(unit_nd, clusters, config, seed)

    def score(labels: Labels) -> Scores:
        if len(np.unique(labels)) < 2:
            raise UserError(
                f"evaluation.cluster.part: the {len(labels)} clips of '{config.part}' are of one class, with "
                "which clusters cannot be compared; choose another part or split"
            )
        scores = clustering_scores(assigned, labels, clusters, classes)
        return scores | {"clusters": clusters, "inertia": inertia, "assigned": assigned.tolist()}

    return score


def k_means(
    rows_nd: NDArray[np.float32], clusters: int, config: ClusterConfig, seed: int
) -> tuple[NDArray[np.int64], float]:
    """The cluster of each row (N,), and the mean squared distance to the means; clusters may end up empty.

    Lloyd's algorithm (IEEE Trans. Inf. Theory 28, 1982) as faiss has it, from the starts of k-means++.
    Of equally good restarts, the first counts. Rows must be finite, and no fewer than the clusters.
    """
    rng = np.random.default_rng(derive_seed(seed, "cluster"))
    best, least = np.zeros(len(rows_nd), np.int64), np.inf
    for _ in range(config.restarts):
        means = faiss.Kmeans(
            rows_nd.shape[1],
            clusters,
            niter=config.iterations,
            min_points_per_centroid=1,
            max_points_per_centroid=len(rows_nd),  # by default it would look at some of the rows alone
        )
        means.train(rows_nd, init_centroids=starts(rows_nd, clusters, rng))
        distance_n, assigned = means.assign(rows_nd)
        if (inertia := float(distance_n.mean(dtype=np.float64))) < least:
            best, least = assigned, inertia
    return best, max(least, 0.0)


def starts(rows_nd: NDArray[np.float32], clusters: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Rows (K, D) to begin with: each drawn by its squared distance to the nearest one before it.

    This is k-means++ (Arthur and Vassilvitskii, SODA 2007). Where all rows are drawn already, any one is.
    """
    square_n = np.einsum("nd,nd->n", rows_nd, rows_nd)
    chosen = [int(rng.integers(len(rows_nd)))]
    nearest_n = np.full(len(rows_nd), np.inf)
    while len(chosen) < clusters:
        last = chosen[-1]
        distance_n = square_n + square_n[last] - 2 * (rows_nd @ rows_nd[last])
        distance_n[last] = 0
        nearest_n = np.minimum(nearest_n, distance_n.clip(min=0))
        reached_n = nearest_n.cumsum()
        place = np.searchsorted(reached_n, rng.random() * reached_n[-1], side="right")
        chosen.append(min(int(place), len(rows_nd) - 1))
    return rows_nd[chosen]


def clustering_scores(assigned: NDArray[np.int64], labels: Labels, clusters: int, classes: int) -> Scores:
    """How clusters (N,) below `clusters` agree with labels (N,) below `classes`; no name of either counts.

    `accuracy` is the share of clips that are right when clusters and classes are matched one to one in the
    best way (Kuhn, Naval Res. Logist. Q. 2, 1955); clips of a cluster without a class are wrong. `nmi` is the
    mutual information over the mean of both entropies, `ari` the adjusted Rand index (Hubert and Arabie, J.
    Classif. 2, 1985), 0 for chance. `purity` is the share of clips that are of their cluster's largest class:
    it grows with the number of clusters, and is there to be compared between equal numbers.
    """
    from sklearn.metrics import (  # noqa: PLC0415 (slow to load, and rarely needed)
        adjusted_rand_score,
        normalized_mutual_info_score,
    )

    counts_kc = np.zeros((clusters, classes), dtype=np.int64)
    np.add.at(counts_kc, (assigned, labels), 1)
    matched = linear_sum_assignment(counts_kc, maximize=True)
    return {
        "accuracy": float(counts_kc[matched].sum() / len(labels)),
        "nmi": float(normalized_mutual_info_score(labels, assigned)),
        "ari": float(adjusted_rand_score(labels, assigned)),
        "purity": float(counts_kc.max(axis=1).sum() / len(labels)),
    }


def _unit(rows_nd: NDArray[np.float32]) -> NDArray[np.float32]:
    unit = np.ascontiguousarray(rows_nd, dtype=np.float32).copy()
    faiss.normalize_L2(unit)
    return unit
