"""k nearest neighbours by cosine similarity, exact, through faiss."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_skeleton.config import Config
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.scores import classification_scores


class KnnConfig(Config):
    """Which numbers of neighbours vote; the first gives the headline number."""

    k: tuple[int, ...] = Field(default=(1, 5, 10, 20), min_length=1)


def knn_scores(features: Features, classes: int, config: KnnConfig) -> dict[str, Any]:
    """Scores of the first k, and under `k` the top-1 of every k.

    The test clips' neighbours are looked up in the training part; each votes once, and a tie goes to the
    class whose nearest neighbour is nearer.
    """
    gallery = len(features.train)
    if not 1 <= min(config.k) <= max(config.k) <= gallery:
        raise UserError(f"evaluation.knn.k: must lie in 1..{gallery}, the clips in the training part")
    neighbours_nk = nearest_neighbours(features.train, features.test, max(config.k))
    votes_nk = features.train_labels[neighbours_nk]
    per_k = {k: _vote(votes_nk[:, :k], classes) for k in config.k}
    scores = classification_scores(per_k[config.k[0]][:, None], features.test_labels, classes)
    scores["k"] = {str(k): float((answer == features.test_labels).mean()) for k, answer in per_k.items()}
    return scores


def leave_one_out(features_nd: NDArray[np.float32], labels: NDArray[np.int64], k: int) -> float:
    """The share of clips (N,) whose k nearest others, 1 <= k < N, vote for the label that the clip has."""
    classes, label_n = np.unique(labels, return_inverse=True)
    nearest_nk = nearest_neighbours(features_nd, features_nd, k + 1)
    others = nearest_nk != np.arange(len(labels))[:, None]
    others[others.all(axis=1), -1] = False  # more than k are the same as the clip, which is not among them
    return float((_vote(label_n[nearest_nk[others].reshape(-1, k)], len(classes)) == label_n).mean())


def nearest_neighbours(
    gallery: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> NDArray[np.int64]:
    """The rows of `gallery` (G, D) nearest to each of `queries` (N, D) by cosine, nearest first, (N, k)."""
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(_unit(gallery))
    neighbours: NDArray[np.int64] = index.search(_unit(queries), k)[1]
    return neighbours


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit = np.ascontiguousarray(rows, dtype=np.float32).copy()
    faiss.normalize_L2(unit)
    return unit


def _vote(votes_nk: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """The class with most votes in each row, (N,); of equal ones that which comes first in the row."""
    rows, k = np.arange(len(votes_nk)), votes_nk.shape[1]
    count_nc = np.zeros((len(votes_nk), classes))
    first_nc = np.full((len(votes_nk), classes), k)
    for rank in reversed(range(k)):
        count_nc[rows, votes_nk[:, rank]] += 1
        first_nc[rows, votes_nk[:, rank]] = rank
    # A class's first rank takes off less than one vote: it decides between equals alone.
    winner: NDArray[np.int64] = (count_nc - first_nc / (k + 1)).argmax(axis=1)
    return winner
