"""Retrieval: how well a gallery's clips of the same class stand before all others, for every query."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ssl_skeleton.config import Config
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.knn import Counts, check_gallery, fitting_k
from ssl_skeleton.evaluation.neighbours.directions import Directions, Rows, blocks, first_copies
from ssl_skeleton.evaluation.scores import DRAWS, Labels, Scorer, Scores, percentile_interval

_BLOCK = 1 << 22  # cosines worked on at once
_USUAL = (1, 5, 10)


class RetrieveConfig(Config):
    """For which numbers of first clips recall and precision are given.

    One number alone is a list of one. Of the usual list, those that a gallery has not are left out.
    """

    k: Counts = Field(default=_USUAL, min_length=1)

    def among(self, gallery: int) -> Self:
        """The same for a gallery of so many clips; UserError for a k that was named and is too large."""
        k = fitting_k(self.k, gallery, "evaluation.retrieve.k", usual=_USUAL)
        return self.model_copy(update={"k": k})


def retrieval_probe(features: Features, classes: int, config: RetrieveConfig) -> Scorer:
    """The gallery, which is the training part, ranked by cosine for every test clip.

    `map` is the mean over queries of the average precision: the mean over the right clips of the share of
    right ones down to there; clips that are equally near stand at the last of their places. `recall` is the
    share of queries with a right clip among the first k, `precision` the mean share of right ones among
    these; of equally near clips the lower row comes first. Queries whose class the gallery lacks are
    `left_out` of all that, and of `queries`. Gallery labels of -1 are right for nobody.
    """
    check_gallery(features.train_labels, "retrieval")
    wanted = config.among(len(features.train)).k
    answers = rank_classes(features.train, features.train_labels, features.test, classes, wanted)
    return lambda labels: _scores(answers, labels)


@dataclass(frozen=True)
class Answers:
    """What each of N queries would score if it were of this or that of C classes.

    `average` (N, C) are average precisions, not a number where the gallery lacks a class; `hits` (N, C) by k
    count the clips of a class among the first k.
    """

    average: NDArray[np.float64]
    hits: dict[int, NDArray[np.int64]]


def rank_classes(
    gallery_gd: Rows, labels_g: Labels, queries_nd: Rows, classes: int, wanted: tuple[int, ...]
) -> Answers:
    """The answers of queries (N, D), a block of them at a time; no query's label is asked for."""
    shape = len(queries_nd), classes
    answers = Answers(np.empty(shape), {k: np.empty(shape, np.int64) for k in wanted})
    distinct, copy_g = np.unique(first_copies(gallery_gd), return_inverse=True)
    rows, queries = Directions(gallery_gd[distinct]), Directions(queries_nd)
    step = max(1, _BLOCK // len(gallery_gd))
    for begin in range(0, len(queries), step):
        part = slice(begin, begin + step)
        apart_nd = _apart(queries.unit(part), rows, places_of(len(gallery_gd)))
        average_nc, hits = _rank(apart_nd[:, copy_g], labels_g, classes, wanted)
        answers.average[part] = average_nc
        for k in wanted:
            answers.hits[k][part] = hits[k]
    return answers


def places_of(gallery: int) -> float:
    """To which part of 1 cosines are told apart: as fine as there is room for beside the number of a row."""
    return 2.0 ** (60 - gallery.bit_length())


def _apart(queries_nd: Tensor, rows: Directions, places: float) -> NDArray[np.int64]:
    """1 - cosine of queries with rows (N, G), in whole numbers of `places`; products and ties are exact."""
    apart_ng = np.empty((len(queries_nd), len(rows)), np.int64)
    for part in blocks(len(rows), rows.dim // 8):
        apart_ng[:, part] = ((1 - queries_nd @ rows.unit(part).T) * places).round_().long()
    return apart_ng


def _rank(
    apart_ng: NDArray[np.int64], labels_g: Labels, classes: int, wanted: tuple[int, ...]
) -> tuple[NDArray[np.float64], dict[int, NDArray[np.int64]]]:
    """The same for queries whose distances from the gallery, whole numbers, are known.

    A sort of whole numbers that hold a distance and a row is faster than one of places, and has no ties.
    """
    n, gallery = apart_ng.shape
    bits, every = gallery.bit_length(), np.arange(gallery)
    keys_ng = np.sort((apart_ng << bits) | every, axis=1)
    ranked_ng = labels_g[keys_ng & (1 << bits) - 1]
    # Class by class, each from its nearest clip on: every query has as many of a class.
    place_ng = np.sort((ranked_ng << bits) | every, axis=1) & (1 << bits) - 1
    label_g = np.sort(labels_g)
    begin_c = np.searchsorted(label_g, np.arange(classes + 1))
    until_ng, right_ng = place_ng + 1, every + 1 - np.searchsorted(label_g, label_g)
    changes_ng = np.diff(keys_ng >> bits, axis=1) != 0
    if not changes_ng.all():  # equally near ones count where the last of them stands
        until_ng = np.take_along_axis(_ends(changes_ng), place_ng, axis=1)
        ends_ng = _ends((np.diff(until_ng, axis=1) != 0) | (np.diff(label_g) != 0))
        right_ng = ends_ng - np.searchsorted(label_g, label_g)
    there, first = np.flatnonzero(np.diff(begin_c)), begin_c[0]  # before the first are those of no class
    sums = np.add.reduceat((right_ng / until_ng)[:, first:], begin_c[there] - first, axis=1)
    average_nc = np.full((n, classes), np.nan)
    average_nc[:, there] = sums / np.diff(begin_c)[there]
    return average_nc, {k: _counts(ranked_ng[:, :k], classes) for k in wanted}


def _ends(changes_ng: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For every place how many there are up to the next change, (N, G); changes (N, G - 1) follow a place."""
    n, last = changes_ng.shape
    end_ng = np.where(changes_ng, np.arange(1, last + 1), last + 1)
    end_ng = np.column_stack([end_ng, np.full(n, last + 1)])
    ends: NDArray[np.int64] = np.minimum.accumulate(end_ng[:, ::-1], axis=1)[:, ::-1]
    return ends


def _counts(labels_nk: Labels, classes: int) -> NDArray[np.int64]:
    """How many of each class there are in every row, (N, C); -1 is none."""
    n_p, column_p = (labels_nk >= 0).nonzero()
    bins_p = n_p * classes + labels_nk[n_p, column_p]
    return np.bincount(bins_p, minlength=len(labels_nk) * classes).reshape(-1, classes)


def _scores(answers: Answers, labels: Labels) -> Scores:
    """The means over queries whose class the gallery has; of `map`, its 95 % bootstrap interval, too."""
    rows = np.arange(len(labels))
    average_n = answers.average[rows, labels]
    kept = ~np.isnan(average_n)
    if not kept.any():
        raise UserError(
            "retrieval: the gallery has no clip of any query's class; choose another gallery or split"
        )
    hits = {k: hits_nc[rows, labels][kept] for k, hits_nc in answers.hits.items()}
    rng, count = np.random.default_rng(0), int(kept.sum())
    drawn = np.array([average_n[kept][rng.integers(count, size=count)].mean() for _ in range(DRAWS)])
    return {
        "map": float(average_n[kept].mean()),
        "interval": {"map": percentile_interval(drawn)},
        "recall": {str(k): float((hits_n > 0).mean()) for k, hits_n in hits.items()},
        "precision": {str(k): float((hits_n / k).mean()) for k, hits_n in hits.items()},
        "queries": count,
        "left_out": int((~kept).sum()),
    }
