"""Scores of a classifier from its ranking of the classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def classification_scores(
    ranking_nk: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> dict[str, Any]:
    """Scores from each clip's classes, best first (N, K), and its label (N,).

    `top1` and `top5` (when there are more than five classes) are shares of all clips, `per_class` shares
    of each class (null for a class without clips), `confusion` counts with the true class as row.
    """
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (labels, ranking_nk[:, 0]), 1)
    totals, right = confusion.sum(axis=1), confusion.diagonal()
    scores: dict[str, Any] = {"top1": float(right.sum() / len(labels))}
    if classes > 5 and ranking_nk.shape[1] >= 5:
        scores["top5"] = float((ranking_nk[:, :5] == labels[:, None]).any(axis=1).mean())
    scores["per_class"] = [
        float(hit / total) if total else None for hit, total in zip(right, totals, strict=True)
    ]
    scores["confusion"] = confusion.tolist()
    return scores
