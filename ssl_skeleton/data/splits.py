"""The published splits of the data sets: which clips train and which test."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.store import Store
from ssl_skeleton.errors import UserError, nearest


@dataclass(frozen=True)
class Split:
    """A split of a store: the indices of its clips, int64, ascending, in no two parts at once."""

    name: str
    train: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class _Rule:
    """The values of one column of clips.csv that make a part; a clip with another value is in none."""

    column: str
    train: frozenset[int]
    test: frozenset[int]


def _one_against_the_rest(column: str, train: frozenset[int], largest: int) -> _Rule:
    return _Rule(column, train, frozenset(range(1, largest + 1)) - train)


_NTU60_PERFORMERS = frozenset((1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38))
_NTU120_PERFORMERS = _NTU60_PERFORMERS.union(
    (45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80),
    (81, 82, 83, 84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
)
_NTU60 = {
    "xsub": _one_against_the_rest("subject", _NTU60_PERFORMERS, largest=40),
    "xview": _Rule("camera", train=frozenset((2, 3)), test=frozenset((1,))),
}
_RULES: dict[str, dict[str, _Rule]] = {
    "ntu60": _NTU60,
    "ntu120": {
        "xsub": _one_against_the_rest("subject", _NTU120_PERFORMERS, largest=106),
        "xset": _one_against_the_rest("setup", frozenset(range(2, 33, 2)), largest=32),
    },
    "synthetic": _NTU60,
    "nw_ucla": {
        "cross_view": _Rule("camera", train=frozenset((1, 2)), test=frozenset((3,))),
        # For choosing hyper-parameters: both parts are training clips of `cross_view`.
        "cross_view_dev": _Rule("camera", train=frozenset((1,)), test=frozenset((2,))),
    },
}


def split_names(dataset: str) -> tuple[str, ...]:
    """The splits of a data set; none for one that this package has no rule for."""
    return tuple(_RULES.get(dataset, ()))


def split_clips(store: Store, split: str) -> Split:
    """Divide the clips of `store`; a clip that belongs to no part, as of an unknown camera, is in none.

    Raises UserError when the data set has no such split, or a part of it is empty.
    """
    dataset = store.meta.dataset
    if split not in split_names(dataset):
        hint = nearest(split, split_names(dataset))
        raise UserError(f"{store.path}: {dataset} has no split '{split}'; {hint}")
    rule = _RULES[dataset][split]
    column = store.columns[rule.column]
    parts = {}
    for part, values in (("train", rule.train), ("test", rule.test)):
        parts[part] = np.flatnonzero(np.isin(column, sorted(values))).astype(np.int64)
        if not len(parts[part]):
            wanted = ", ".join(map(str, sorted(values)[:5])) + (", ..." if len(values) > 5 else "")
            raise UserError(
                f"{store.path}: no clip for the {part} part of split '{split}', which takes "
                f"{rule.column} {wanted}; prepare more recordings of {dataset}"
            )
    return Split(split, **parts)
