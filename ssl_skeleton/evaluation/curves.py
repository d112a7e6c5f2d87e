"""Curves: the scores of one probe where clips are shown in several ways, and the table of them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.evaluation.results import ROWS, unseen_line
from ssl_skeleton.evaluation.scores import (
    DRAWS,
    Labels,
    Scorer,
    Scores,
    percentile_interval,
    redrawn_means,
)

TITLES = {
    "seen": "seen of each clip",
    "missing": "joints missing",
    "noise": "noise",
    "rotation": "turned by up to",
    "dropped": "frames lost",
    "size": "larger or smaller by up to",
    "tempo": "faster and slower by up to",
}
# How levels of a unit are read: times what, and in which unit then.
UNITS = {
    "share": (100.0, "%"),
    "metres": (100.0, "cm"),
    "degrees": (1.0, "degrees"),
    "as stored": (1.0, "as stored"),
}


def curve_scores(
    levels: Sequence[float], unit: str, scorers: Sequence[Sequence[Scorer]], labels: Labels
) -> Scores:
    """A curve from the answers at each level, of one or several draws, and the labels (N,) of the clips.

    `top1` and `balanced` are means over the draws, `std` the standard deviation of top1 between them (of a
    sample; 0 where a level has one draw), `interval` its 95 % bootstrap interval when clips are drawn again,
    each with its draws. `area` is the mean of top1 over the levels, `area_interval` its interval. `unit` is
    that of the levels (`UNITS`).
    """
    each = [[scorer(labels) for scorer in draws] for draws in scorers]
    right_ln = np.stack([np.mean([_right(one, labels) for one in draws], axis=0) for draws in each])
    top1 = [statistics.fmean(one["top1"] for one in draws) for draws in each]
    spread = [statistics.stdev(one["top1"] for one in draws) if len(draws) > 1 else 0.0 for draws in each]
    return {
        "unit": unit,
        "levels": list(levels),
        "draws": max(map(len, each)),
        "top1": top1,
        "balanced": [statistics.fmean(one["balanced"] for one in draws) for draws in each],
        "std": spread,
        "interval": [
            draws[0]["interval"]["top1"] if len(draws) == 1 else mean_interval(right_n)
            for draws, right_n in zip(each, right_ln, strict=True)
        ],
        "area": statistics.fmean(top1),
        "area_interval": mean_interval(right_ln.mean(axis=0)),
    }


def mean_interval(value_n: NDArray[np.float64]) -> list[float]:
    """The 95 % percentile interval of the mean of values (N,) when they are drawn again."""
    return percentile_interval(redrawn_means(np.random.default_rng(0), value_n, DRAWS, places=9))


def curve_tables(result: Mapping[str, Any], classes: tuple[str, ...]) -> str:
    """The curves of a result as text: of each a table with a row a representation and a column a level."""
    draws = max(curve["draws"] for curve in result["curves"].values())
    spread = f", mean ± deviation of {draws} draws" if draws > 1 else ""
    probe = result["protocol"]["probe"]
    place = f"{result['evaluator']} on {result['store']}, split {result['split']}"
    head = f"{place}, {probe} probe, top-1 in %{spread}"
    lines = [head, *unseen_line(result, classes)]
    return "\n".join([*lines, *(line for name in result["curves"] for line in _table(result, name))])


def named_rows(result: Mapping[str, Any]) -> dict[str, Scores]:
    """The scores of the representation and of each baseline, by the name that a person reads."""
    streams = "+".join(result["streams"])
    rows = {"trained": result} | result["baselines"]
    return {ROWS[key].format(streams=streams): scores for key, scores in rows.items()}


def _table(result: Mapping[str, Any], name: str) -> list[str]:
    """The lines of one curve."""
    rows, curve = named_rows(result), result["curves"][name]
    factor, unit = UNITS[curve["unit"]]
    title = f"{TITLES[name]}, {unit}"
    width, column = max(map(len, [title, *rows])), 13 if curve["draws"] > 1 else 7
    heads = [*(f"{factor * level:g}" for level in curve["levels"]), "mean"]
    lines = ["", f"{title:<{width}}" + "".join(f"{head:>{column}}" for head in heads)]
    for row, scores in rows.items():
        own = scores["curves"][name]
        drawn = [level > 0 and own["draws"] > 1 for level in own["levels"]]  # level 0 is there but once
        spreads = [f" ± {100 * std:.1f}" * many for std, many in zip(own["std"], drawn, strict=True)]
        cells = [f"{100 * top1:.1f}{spread}" for top1, spread in zip(own["top1"], spreads, strict=True)]
        cells.append(f"{100 * own['area']:.1f}")
        lines.append(f"{row:<{width}}" + "".join(f"{cell:>{column}}" for cell in cells))
    return lines


def _right(scores: Scores, labels: Labels) -> NDArray[np.bool_]:
    """Which clips (N,) are told right."""
    right: NDArray[np.bool_] = np.array(scores["predicted"]) == labels
    return right
