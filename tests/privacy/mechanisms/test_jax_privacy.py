"""The banded strategy beside jax-privacy's, where that is installed; nothing of it is needed at run time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedflair.privacy.mechanisms.toeplitz import optimal_coefficients, prefix_error

toeplitz = pytest.importorskip("jax_privacy.matrix_factorization.toeplitz", exc_type=ImportError)


@pytest.mark.parametrize(("num_rounds", "num_bands"), [(64, 8), (208, 16)])
def test_the_strategy_is_as_good_and_its_sensitivity_the_same(num_rounds: int, num_bands: int) -> None:
    ours = optimal_coefficients(num_rounds, num_bands)
    theirs = np.asarray(toeplitz.optimize_banded_toeplitz(num_rounds, num_bands), dtype=np.float64)
    theirs = theirs[:num_bands] / np.linalg.norm(theirs[:num_bands])
    assert prefix_error(ours, num_rounds) == pytest.approx(prefix_error(theirs, num_rounds), rel=1e-3)
    errors = np.asarray(toeplitz.per_query_error(strategy_coef=ours, n=num_rounds), dtype=np.float64)
    assert math.sqrt(errors.mean()) == pytest.approx(prefix_error(ours, num_rounds), rel=1e-4)
    participations = num_rounds // num_bands
    squared = float(toeplitz.minsep_sensitivity_squared(ours, num_bands, participations, num_rounds))
    assert squared == pytest.approx(participations, rel=1e-4)
