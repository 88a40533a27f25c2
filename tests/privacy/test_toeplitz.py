from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import toeplitz
from scipy.optimize import approx_fprime, minimize

from fedflair.privacy.toeplitz import (
    _log_objective,
    optimal_coefficients,
    prefix_error,
    rounded_up,
    square_root_coefficients,
)


def dense(coefficients: np.ndarray, num_rounds: int) -> np.ndarray:
    column = np.zeros(num_rounds)
    column[: len(coefficients)] = coefficients
    return toeplitz(column, np.zeros(num_rounds))


def dense_error(strategy: np.ndarray) -> float:
    """Sensitivity to one participation times the root mean square error of the prefix sums, by dense algebra."""
    num_rounds = len(strategy)
    prefix = np.tril(np.ones((num_rounds, num_rounds)))
    columns = np.linalg.norm(strategy, axis=0).max()
    return float(columns * np.linalg.norm(prefix @ np.linalg.inv(strategy)) / np.sqrt(num_rounds))


def test_published_errors() -> None:
    assert dense_error(np.eye(64)) == pytest.approx(5.70088, abs=1e-5)
    assert prefix_error(np.ones(1), 64) == pytest.approx(5.70088, abs=1e-5)
    optimal = optimal_coefficients(64, 8)
    assert prefix_error(optimal, 64) == pytest.approx(2.66397, abs=1e-5)
    assert dense_error(dense(optimal, 64)) == pytest.approx(2.66397, abs=1e-5)


def test_the_dense_optimum_is_hardly_better() -> None:
    """min tr(A^T A X^-1) over banded X = C^T C with unit diagonal, by its gradient -X^-1 A^T A X^-1."""
    num_rounds, num_bands = 64, 8
    workload = np.tril(np.ones((num_rounds, num_rounds)))
    gram = workload.T @ workload
    inside = [(i, j) for i in range(num_rounds) for j in range(i) if i - j < num_bands]
    rows, columns = np.array(inside).T

    def objective(entries: np.ndarray) -> tuple[float, np.ndarray]:
        x = np.eye(num_rounds)
        x[rows, columns] = x[columns, rows] = entries
        if np.linalg.eigvalsh(x)[0] <= 1e-9:
            return 1e12, np.zeros(len(entries))
        inverse = np.linalg.inv(x)
        return float(np.trace(gram @ inverse)), -2 * (inverse @ gram @ inverse)[rows, columns]

    start = dense(optimal_coefficients(num_rounds, num_bands), num_rounds)
    start = start / np.linalg.norm(start, axis=0)
    found = minimize(
        objective, (start.T @ start)[rows, columns], jac=True, method="L-BFGS-B", options={"maxiter": 3000}
    )
    assert np.sqrt(found.fun / num_rounds) == pytest.approx(2.62052, abs=1e-4)
    x = np.eye(num_rounds)
    x[rows, columns] = x[columns, rows] = found.x
    # C^T C = X with C lower-triangular is the flipped factor; the plain one has unit rows instead of unit columns.
    strategy = np.linalg.cholesky(x[::-1, ::-1])[::-1, ::-1].T
    assert np.allclose(np.linalg.norm(strategy, axis=0), 1)
    assert dense_error(strategy) == pytest.approx(2.62052, abs=1e-4)
    wrong_side = np.linalg.cholesky(x)
    assert np.allclose(np.linalg.norm(wrong_side, axis=1), 1)
    assert np.linalg.norm(wrong_side, axis=0).max() > 1.1


@pytest.mark.parametrize(("num_rounds", "num_bands"), [(256, 16), (256, 256), (50, 7), (10, 100), (5, 1)])
def test_columns_have_norm_at_most_one_and_no_participation_pattern_does_more(num_rounds: int, num_bands: int) -> None:
    coefficients = optimal_coefficients(num_rounds, num_bands)
    assert len(coefficients) == min(num_bands, num_rounds)
    strategy = dense(coefficients, num_rounds)
    columns = np.linalg.norm(strategy, axis=0)
    assert columns.max() <= 1
    assert np.linalg.norm(coefficients) == pytest.approx(1, abs=1e-12)
    # Columns at least num_bands apart are orthogonal: k participations cost sqrt(k), with any signs.
    for first in range(min(num_bands, num_rounds)):
        group = strategy[:, first::num_bands]
        gram = group.T @ group
        assert np.allclose(gram, np.diag(np.diag(gram)), atol=1e-15)


def test_gradient() -> None:
    tail = optimal_coefficients(40, 6)[1:] * 1.3
    numeric = approx_fprime(tail, lambda t: _log_objective(np.concatenate([[1.0], t]), 40)[0], 1e-7)
    assert _log_objective(np.concatenate([[1.0], tail]), 40)[1] == pytest.approx(numeric, abs=1e-5)


def test_optimising_helps_and_more_bands_help() -> None:
    errors = [prefix_error(optimal_coefficients(500, bands), 500) for bands in (1, 2, 8, 32, 128)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.95 * prefix_error(square_root_coefficients(32), 500)


def test_square_root_squares_to_the_prefix_sums() -> None:
    root = square_root_coefficients(6)
    assert np.convolve(root, root)[:6] / root[0] ** 2 == pytest.approx(np.ones(6))


def test_five_thousand_rounds_without_a_dense_matrix() -> None:
    assert prefix_error(optimal_coefficients(5000, 48), 5000) == pytest.approx(8.1831, abs=1e-3)


def test_a_column_is_accounted_by_the_sizes_of_its_entries_and_never_by_less() -> None:
    assert rounded_up(np.array([0.8, -0.6000000001]), 3) == (0.8, 0.600000001, 0.0)
