"""What a strategy of correlated noise is: noises of T rounds that partly cancel in the sum over the rounds.

With C lower-triangular (T x T), a run releases C X + Z for the rounds' sums X (T x P) and independent noise Z;
equivalently, round t gets row t of C^-1 Z. What the rounds add up to then has the error A C^-1 Z, A being all ones on
and under the diagonal (Denisov et al. 2022, arXiv:2202.08312, who also show that updates may depend on what was
released before). One client's contributions, each of norm 1 at most, in rounds S move C X by the sum of C's columns in
S at most, if no entry of C is negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Vector = npt.NDArray[np.float64]
State = Mapping[str, torch.Tensor]

# What sums of T squares may be too small by.
_ROUNDING = 1 + 1e-12


@dataclass(frozen=True)
class Strategy:
    """A matrix C of T rounds, as far as a run needs it.

    num_buffers: vectors as long as the model that are kept between rounds.
    growth: float64 [T], standard deviation of each round's noise for unit Z: the norms of the rows of C^-1.
    errors: float64 [T], the same of the sum of all noises so far: the norms of the rows of A C^-1.
    sensitivity: (number of rounds n, b) -> at least the norm of what one client, who takes part at most once in any b
        rounds, adds to the first n rows of C X.
    init: P -> the state before round 0; what the rows of C^-1 are computed from travels with it, as another machine's
        optimiser may differ in the last digit.
    correlate: (fresh N(0, 1), float64 [P], which may be used up; round; state) -> (row of C^-1 Z, next state). Doing a
        round again, from the state before it or after it, gives the same.
    matrix: (n, state) -> the first n rows and columns of C, float64 [n, n]: for whoever checks.
    """

    name: str
    num_buffers: int
    growth: Vector
    errors: Vector
    sensitivity: Callable[[int, int], float]
    init: Callable[[int], State]
    correlate: Callable[[torch.Tensor, int, State], tuple[torch.Tensor, State]]
    matrix: Callable[[int, State], Vector]

    @property
    def num_rounds(self) -> int:
        return len(self.growth)

    @property
    def mean_error(self) -> float:
        """Root mean square over rounds of the error of the running sum, for unit Z."""
        return math.sqrt(float((self.errors**2).mean()))


def participations(num_rounds: int, min_separation: int) -> int:
    """The most rounds, of ``num_rounds``, that a client takes part in, of any ``min_separation`` in one at most."""
    return math.ceil(num_rounds / min_separation)


def toeplitz_sensitivity(coefficients: Vector, num_rounds: int, min_separation: int) -> float:
    """Of C of ``num_rounds`` rounds with this first column, entries beyond its end being 0.

    The entries must fall from first to last, and not below 0. The worst rounds are then 0, b, 2b, ... (Kalinin and
    Lampert 2024, arXiv:2405.13763): the product of columns s < t is sum_j c_j c_(j + t - s), j < n - t, which falls in
    t and in t - s; and moving the i-th participation to (i - 1) b makes neither larger for any pair of them.
    Raises ValueError for other columns.
    """
    if coefficients[-1] < 0 or (np.diff(coefficients) > 0).any():
        raise ValueError("a column that does not fall, or falls below 0, has its worst rounds elsewhere")
    num_times = participations(num_rounds, min_separation)
    column = np.zeros(num_times * min_separation)
    column[: min(len(coefficients), num_rounds)] = coefficients[:num_rounds]
    # Round j b + r has entry r, b + r, ... j b + r of the column in it: one from each participation so far.
    total = np.cumsum(column.reshape(num_times, min_separation), axis=0).ravel()[:num_rounds]
    return float(np.linalg.norm(total)) * _ROUNDING


def toeplitz_matrix(coefficients: Vector, num_rounds: int) -> Vector:
    """Lower-triangular, float64 [n, n], with this first column, entries beyond its end being 0."""
    from scipy.linalg import toeplitz

    column = np.zeros(num_rounds)
    column[: len(coefficients)] = coefficients[:num_rounds]
    return np.asarray(toeplitz(column, np.zeros(num_rounds)))


def row_norms(column: Vector) -> Vector:
    """Of the lower-triangular Toeplitz matrix with this first column: float64 [T]."""
    return np.sqrt(np.cumsum(column**2))
