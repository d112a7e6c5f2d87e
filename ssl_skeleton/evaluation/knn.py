"""k nearest neighbours by cosine similarity."""

from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from ssl_skeleton.config import Config
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.neighbours.gallery import Gallery, Neighbours, is_exact, nearest_others, recall
from ssl_skeleton.evaluation.neighbours.indexes import EXACT, AnyIndex
from ssl_skeleton.evaluation.neighbours.rerank import ReciprocalConfig, reranked, reranked_others
from ssl_skeleton.evaluation.scores import Labels, Scorer, Scores, classification_scores

_SAMPLE = 1000  # queries for which an index is compared with the exact one
_USUAL = (1, 5, 10, 20)


def _listed(value: Any) -> Any:
    return (value,) if type(value) is int else value


Counts = Annotated[tuple[int, ...], BeforeValidator(_listed)]
"""How many neighbours, one number or several; a number alone is a list of one."""


class KnnConfig(Config):
    """Which neighbours vote, and how.

    k              how many; the first number gives the headline score, and one alone is a list of one. Of the
                   usual list, those that a gallery has not are left out
    weights        `uniform`: each has one vote; `distance`: exp(cosine / temperature) votes
                   (Wu et al., CVPR 2018, arXiv 1805.01978, Section 3.4)
    leave_one_out  ask for every training clip among the other ones; then no test part is needed
    index          what finds neighbours: `exact`, or for large galleries `ivf` or `hnsw`, which miss some
    rerank         order them by what their own neighbours have in common (`reciprocal`)
    """

    k: Counts = Field(default=_USUAL, min_length=1)
    weights: Literal["uniform", "distance"] = "uniform"
    temperature: float = Field(default=0.07, gt=0)
    leave_one_out: bool = False
    index: AnyIndex = EXACT
    rerank: bool = False
    reciprocal: ReciprocalConfig = ReciprocalConfig()

    @property
    def evaluator(self) -> str:
        """What its results are called, as knn_distance_rerank: neighbours found otherwise have others."""
        ways = {
            "leave_one_out": self.leave_one_out,
            self.weights: self.weights != "uniform",
            "rerank": self.rerank,
            self.index.name: self.index.name != "exact",
        }
        return "_".join(["knn", *(way for way, taken in ways.items() if taken)])

    def among(self, gallery: int) -> Self:
        """The same for a gallery of so many clips; UserError for a k that was named and is too large."""
        k = fitting_k(self.k, gallery - self.leave_one_out, "evaluation.knn.k", usual=_USUAL)
        return self.model_copy(update={"k": k})


def knn_probe(features: Features, classes: int, config: KnnConfig) -> Scorer:
    """The answers by every k: scores are of the first one, and under `k` is the top-1 of each.

    The test clips' neighbours are looked up in the training part, or with `leave_one_out` those of the
    training clips among the others. A tie goes to the class whose nearest neighbour is nearer. Beside the
    scores stand whether it was re-ranked, and of an index that is not exact its `index_recall`: the share of
    the k true neighbours that it finds, for `index_queries` of the queries.
    """
    if config.leave_one_out and features.test is not features.train:
        raise UserError("evaluation.knn.leave_one_out: is for the command knn alone; set it to false")
    check_gallery(features.train_labels, "kNN")
    config = config.among(len(features.train))
    found = _find(features, max(config.k), config)
    told = {"rerank": config.rerank} | _index_recall(features, config)
    per_k = answers(found, features.train_labels, classes, config)

    def score(labels: Labels) -> Scores:
        shares = {str(k): float((answer == labels).mean()) for k, answer in per_k.items()}
        return classification_scores(per_k[config.k[0]][:, None], labels, classes) | {"k": shares} | told

    return score


def answers(
    found: Neighbours, labels: NDArray[np.int64], classes: int, config: KnnConfig
) -> dict[int, NDArray[np.int64]]:
    """The class of each query (N,) by every k, from its neighbours in a gallery with these labels (G,)."""
    weights_nk = np.ones_like(found.likeness)
    if config.weights == "distance":  # less that of the nearest: of large ones, exp would have no value
        weights_nk = np.exp((found.likeness - found.likeness[:, :1]) / config.temperature)
    votes_nk = labels[found.rows]
    return {k: vote(votes_nk[:, :k], weights_nk[:, :k], classes) for k in config.k}


def leave_one_out(features_nd: NDArray[np.float32], labels: NDArray[np.int64], k: int) -> float:
    """The share of clips (N,) whose k nearest others, 1 <= k < N, vote for the label that the clip has."""
    classes, label_n = np.unique(labels, return_inverse=True)
    found = nearest_others(features_nd, k)
    answer_n = vote(label_n[found.rows], np.ones_like(found.likeness), len(classes))
    return float((answer_n == label_n).mean())


def vote(votes_nk: NDArray[np.int64], weights_nk: NDArray[np.float64], classes: int) -> NDArray[np.int64]:
    """The class with most votes in each row, (N,); of equal ones that which comes first in the row."""
    rows, k = np.arange(len(votes_nk)), votes_nk.shape[1]
    count_nc = np.zeros((len(votes_nk), classes))
    first_nc = np.full((len(votes_nk), classes), k)
    for rank in range(k):
        count_nc[rows, votes_nk[:, rank]] += weights_nk[:, rank]
    for rank in reversed(range(k)):
        first_nc[rows, votes_nk[:, rank]] = rank
    most_nc = count_nc == count_nc.max(axis=1, keepdims=True)
    winner: NDArray[np.int64] = np.where(most_nc, first_nc, k).argmin(axis=1)
    return winner


def fitting_k(wanted: tuple[int, ...], gallery: int, key: str, *, usual: tuple[int, ...]) -> tuple[int, ...]:
    """Those of the wanted numbers that a gallery of so many clips has.

    Of the `usual` ones, the others are left out. UserError, which names the `key`, where that leaves none,
    and for others that do not fit.
    """
    fitting = tuple(k for k in wanted if 1 <= k <= gallery)
    if fitting != wanted and not (fitting and wanted == usual):
        mend = f"; name such numbers alone, as {key}={[*fitting] or [1]}"
        given = ", ".join(str(k) for k in wanted if k not in fitting)
        there = f"must lie in 1..{gallery}, the clips in the gallery, not {given}"
        raise UserError(f"{key}: {there}{mend if gallery else ''}")
    return fitting


def check_gallery(labels: NDArray[np.int64], what: str) -> None:
    """Raise UserError when a gallery has clips of one class alone."""
    if len(np.unique(labels)) < 2:
        raise UserError(f"{what}: all clips in the gallery are of one class; choose another data.split")


def _find(features: Features, k: int, config: KnnConfig) -> Neighbours:
    """The k neighbours of every clip that is asked for."""
    train, test, index = features.train, features.test, config.index
    if config.leave_one_out and config.rerank:
        return reranked_others(train, k, config.reciprocal, index)
    if config.leave_one_out:
        return nearest_others(train, k, index)
    if config.rerank:
        return reranked(train, test, k, config.reciprocal, index)
    return Gallery(train, index).nearest(test, k)


def _index_recall(features: Features, config: KnnConfig) -> dict[str, Any]:
    """How many true neighbours an index finds, for the largest k and evenly spaced queries."""
    if is_exact(config.index):
        return {}
    k, every = max(config.k), len(features.test)
    queries = features.test[np.unique(np.linspace(0, every - 1, _SAMPLE).astype(np.int64))]
    found, exact = (Gallery(features.train, one).nearest(queries, k) for one in (config.index, EXACT))
    return {"index_recall": {str(k): recall(found, exact)}, "index_queries": len(queries)}
