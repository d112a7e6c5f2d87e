"""Splits: which clips of a data set train, which test, and which validate."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from ssl_skeleton.config import Config

Columns = Mapping[str, NDArray[np.int64]]


class SplitRule(Config):
    """The values of one column of clips.csv that make a part; a clip with another value is in none."""

    column: Literal["subject", "camera", "setup", "repetition"]
    train: tuple[int, ...]
    test: tuple[int, ...]
    validation: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        values = [*self.train, *self.validation, *self.test]
        if len(set(values)) != len(values):
            raise ValueError(f"a {self.column} stands twice")
        return self

    def divide(self, columns: Columns) -> dict[str, NDArray[np.int64]]:
        """The indices of the clips of each part, ascending; `columns` are those of clips.csv."""
        column = columns[self.column]
        return {
            part: np.flatnonzero(np.isin(column, sorted(getattr(self, part)))).astype(np.int64)
            for part in ("train", "validation", "test")
        }


@dataclass(frozen=True)
class Split:
    """A split of a store: the indices of its clips, int64, ascending, in no two parts at once.

    `validation` is empty unless the split names clips for choosing hyper-parameters.
    """

    name: str
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    validation: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def one_against_the_rest(
    column: Literal["subject", "setup"], train: tuple[int, ...], largest: int
) -> SplitRule:
    """The rule by which all values from 1 to `largest` that do not train test."""
    test = tuple(value for value in range(1, largest + 1) if value not in train)
    return SplitRule(column=column, train=train, test=test)
