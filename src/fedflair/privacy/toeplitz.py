"""Banded Toeplitz strategies for matrix factorisation: noise that partly cancels in the sum over rounds.

With C lower-triangular, Toeplitz, of first column c (zero from entry b on), a run of T rounds releases C X + Z for the
rounds' sums X (T x P) and independent noise Z; equivalently each round's sum X_t gets the noise (C^-1 Z)_t. What a run
adds up to, A X with A all ones on and under the diagonal, then has the error A C^-1 Z.

Columns j and j + k b of C share no row, so a client in rounds at least b apart meets orthogonal columns, each of norm
at most |c| = 1. Source: Choquette-Choo et al. 2023, (Amplified) Banded Matrix Factorization, arXiv:2306.08153.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]

# What a column is rounded up to a multiple of, so that the last digits of another machine are no other column.
_COLUMN_STEPS = 1e9


def optimal_coefficients(num_rounds: int, num_bands: int) -> Vector:
    """c with |c| = 1 and the least ``prefix_error``: float64 [min(num_bands, num_rounds)].

    L-BFGS with exact gradients, O(num_rounds * num_bands) a step; no matrix is ever formed.
    """
    # Imported here and below: 65 MB and 0.4 s that runs without this noise do without.
    from scipy.optimize import minimize

    num_bands = min(num_bands, num_rounds)
    start = square_root_coefficients(num_bands)
    if num_bands == 1:
        return start
    found = minimize(
        lambda tail: _log_objective(np.concatenate([[1.0], tail]), num_rounds),
        start[1:] / start[0],
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-9},
    )
    candidates = [start, _unit(np.concatenate([[1.0], found.x]))]
    return min(candidates, key=lambda c: prefix_error(c, num_rounds))


def square_root_coefficients(num_bands: int) -> Vector:
    """The first entries of the square root of A, (-1)^k binom(-1/2, k), scaled to norm 1."""
    steps = np.arange(1, num_bands)
    return _unit(np.cumprod(np.concatenate([[1.0], (2 * steps - 1) / (2 * steps)])))


def prefix_error(coefficients: Vector, num_rounds: int) -> float:
    """Root mean square over rounds of the error of the running sum, for unit noise: |A C^-1|_F / sqrt(T)."""
    return math.sqrt(_squared_error(_prefix_noise(coefficients, num_rounds)) / num_rounds)


def prefix_errors(coefficients: Vector, num_rounds: int) -> Vector:
    """Standard deviation of the running sum's error after each round, for unit noise: float64 [num_rounds]."""
    return np.sqrt(np.cumsum(_prefix_noise(coefficients, num_rounds) ** 2))


def growth(coefficients: Vector, num_rounds: int) -> Vector:
    """Standard deviation of each round's noise for unit Z, the norms of the rows of C^-1: float64 [num_rounds]."""
    impulse = np.zeros(num_rounds)
    impulse[0] = 1.0
    return np.sqrt(np.cumsum(divided(impulse, coefficients) ** 2))


def _unit(coefficients: Vector) -> Vector:
    """Norm 1, or less by a rounding error: never more."""
    scaled: Vector = coefficients / (np.linalg.norm(coefficients) * (1 + 1e-15))
    return scaled


def _prefix_noise(coefficients: Vector, num_rounds: int) -> Vector:
    """First column of A C^-1: the power series 1 / ((1 - x) c(x)) up to x^(T-1)."""
    return divided(np.ones(num_rounds), coefficients)


def divided(series: Vector, divisor: Vector) -> Vector:
    """The power series ``series(x) / divisor(x)`` up to as many terms as ``series`` has."""
    from scipy.signal import lfilter

    quotient: Vector = lfilter([1.0], divisor, series)
    return quotient


def _squared_error(column: Vector) -> float:
    """Squared Frobenius norm of the Toeplitz matrix with this first column: entry k stands on T - k diagonal places."""
    return float(np.dot(np.arange(len(column), 0, -1), column**2))


def _log_objective(coefficients: Vector, num_rounds: int) -> tuple[float, Vector]:
    """log(|c|^2 |A C^-1|_F^2), which scaling c leaves alone, and its gradient in c_1, c_2, ..."""
    with np.errstate(all="ignore"):
        column = _prefix_noise(coefficients, num_rounds)
        squared = _squared_error(column)
        if not math.isfinite(squared):
            return 1e300, np.zeros(len(coefficients) - 1)
        # d column / d c_j is minus the series x^j column(x) / c(x).
        moved = divided(column, coefficients)
        weighted = np.arange(num_rounds, 0, -1) * column
        lags = np.array([np.dot(weighted[j:], moved[: num_rounds - j]) for j in range(1, len(coefficients))])
    norm = float(np.dot(coefficients, coefficients))
    return math.log(norm * squared), 2 * coefficients[1:] / norm - 2 * lags / squared


def rounded_column(num_rounds: int, num_bands: int, separation: int) -> tuple[float, ...]:
    """What one contribution adds to ``separation`` rounds, from its own on, of as many bands as asked for."""
    return rounded_up(optimal_coefficients(num_rounds, num_bands), separation)


def rounded_up(coefficients: Vector, num_rows: int) -> tuple[float, ...]:
    """Their sizes, rounded up and followed by zeros: a larger column costs more, so that epsilon still holds."""
    column = np.zeros(num_rows)
    column[: len(coefficients)] = np.ceil(np.abs(coefficients) * _COLUMN_STEPS) / _COLUMN_STEPS
    return tuple(column.tolist())
