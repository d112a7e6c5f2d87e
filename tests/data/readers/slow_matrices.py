"""Matrices of 4 x 4, one at a time and with nothing but math: what forward kinematics is compared with."""

import math
from collections.abc import Sequence

Matrix = list[list[float]]


def product(*factors: Matrix) -> Matrix:
    """The product of matrices, from left to right."""
    result = shift(0, 0, 0)
    for factor in factors:
        result = [[sum(row[k] * factor[k][j] for k in range(4)) for j in range(4)] for row in result]
    return result


def shift(x: float, y: float, z: float) -> Matrix:
    """A translation."""
    return [[1.0, 0.0, 0.0, x], [0.0, 1.0, 0.0, y], [0.0, 0.0, 1.0, z], [0.0, 0.0, 0.0, 1.0]]


def turn(axis: str, degrees: float) -> Matrix:
    """A right-handed rotation about a coordinate axis."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows = {
        "x": [[1.0, 0.0, 0.0, 0.0], [0.0, c, -s, 0.0], [0.0, s, c, 0.0]],
        "y": [[c, 0.0, s, 0.0], [0.0, 1.0, 0.0, 0.0], [-s, 0.0, c, 0.0]],
        "z": [[c, -s, 0.0, 0.0], [s, c, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
    }
    return [*rows[axis], [0.0, 0.0, 0.0, 1.0]]


def place(matrix: Matrix) -> Sequence[float]:
    """Where a matrix takes the origin."""
    return [row[3] for row in matrix[:3]]
