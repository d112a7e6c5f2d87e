"""Splits: which clips of a data set train, which test, and which validate."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, model_validator

from ssl_skeleton.config import Config


def _check_name(name: str) -> str:
    """It becomes part of a file's name, so a stranger's store must not choose it freely."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) is None:
        raise ValueError(f"the name {name!r} should have letters, digits, - and _ alone")
    return name


SplitName = Annotated[str, AfterValidator(_check_name)]
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


# As for MSR-Action3D, UTKinect and Florence 3D Actions: of ten subjects those with odd numbers train.
ODD_SUBJECTS_TRAIN: Mapping[str, SplitRule] = {
    "cross_subject": SplitRule(column="subject", train=(1, 3, 5, 7, 9), test=(2, 4, 6, 8, 10)),
    # For choosing hyper-parameters: both parts are training clips of `cross_subject`.
    "cross_subject_dev": SplitRule(column="subject", train=(1, 5, 9), test=(3, 7)),
}


def one_against_the_rest(
    column: Literal["subject", "setup"], train: tuple[int, ...], largest: int
) -> SplitRule:
    """The rule by which all values from 1 to `largest` that do not train test."""
    test = tuple(value for value in range(1, largest + 1) if value not in train)
    return SplitRule(column=column, train=train, test=test)
