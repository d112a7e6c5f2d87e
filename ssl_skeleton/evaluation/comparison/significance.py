"""The cells of a column, and how far each is from the reference's, where answers can tell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ssl_skeleton.evaluation.comparison.bootstrap import Right, holm, paired_bootstrap
from ssl_skeleton.evaluation.comparison.comparable import Line, Place
from ssl_skeleton.evaluation.comparison.result_files import Scored
from ssl_skeleton.evaluation.comparison.tables import Cell
from ssl_skeleton.evaluation.scores import Labels

_OFF = 1e-6  # a score and the one that its answers give differ by less


@dataclass(frozen=True)
class Judged:
    """The cells of a column, None where a row has no such score; and why some have no p, if any."""

    cells: Sequence[Cell | None]
    reason: str = ""


def judged(place: Place, lines: Sequence[Line], reference: int, labels: Labels | str) -> Judged:
    """A column, with differences to the row `reference` where there are several rows.

    The labels (N,) are of the test clips; a text says why there are none.
    """
    scored = {number: line.at(place) for number, line in enumerate(lines) if place in line.scored}
    cells = {number: Cell(tuple(map(place.value, row))) for number, row in scored.items()}
    reason = ""
    if len(scored) < 2:
        pass  # nothing to compare
    elif reference not in scored:
        reason = f"{lines[reference].name} has no such score"
    elif isinstance(labels, str):
        reason = labels
    else:
        right = {number: _right(row, place, labels) for number, row in scored.items()}
        cells |= _compared(cells, right, reference)
        silent = [lines[number].name for number, found in right.items() if found is None]
        whose = f" of {', '.join(silent)}" if len(silent) < len(right) else ""
        reason = f"no answers{whose} are kept that give this score" if silent else ""
    return Judged([cells.get(number) for number in range(len(lines))], reason)


def _compared(
    cells: Mapping[int, Cell], found: Mapping[int, Right | None], reference: int
) -> dict[int, Cell]:
    """The cells with their differences; their p are corrected for so many comparisons."""
    right = {number: answers for number, answers in found.items() if answers is not None}
    if reference not in right:
        return {}
    others = [number for number in right if number != reference]
    differences = [paired_bootstrap(right[number], right[reference]) for number in others]
    adjusted = holm([difference.p for difference in differences])
    return {
        number: replace(cells[number], difference=difference, adjusted_p=p)
        for number, difference, p in zip(others, differences, adjusted, strict=True)
    }


def _right(row: Sequence[Scored], place: Place, labels: Labels) -> Right | None:
    """How right the answers are (S, N), by seed; None where those that are kept do not give the score."""
    shares = []
    for scored in row:
        answers_rn = np.array(scored.predicted)
        if not place.is_answered(scored) or answers_rn.shape[1] != len(labels):
            return None
        share_n = (answers_rn == labels).mean(axis=0)
        if abs(share_n.mean() - place.value(scored)) > _OFF:
            return None
        shares.append(share_n)
    return np.stack(shares)
