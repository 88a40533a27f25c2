"""The banded strategy beside jax-privacy's, where that is installed; nothing of it is needed at run time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedflair.privacy.accounting.b_min_separation import log_likelihood_ratio, rate_when_free
from fedflair.privacy.accounting.monte_carlo import Coins, monte_carlo_epsilon
from fedflair.privacy.mechanisms.correlated.buffered_linear_toeplitz import buffered_linear_toeplitz
from fedflair.privacy.mechanisms.correlated.inverse_square_root import banded_inverse_square_root
from fedflair.privacy.toeplitz import optimal_coefficients, prefix_error

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


def test_buffers_bands_of_the_inverse_and_what_a_client_counts_are_theirs() -> None:
    num_rounds, separation = 64, 8
    for strategy in (
        buffered_linear_toeplitz(num_rounds, 2, separation),
        banded_inverse_square_root(num_rounds, 6),
    ):
        column = strategy.matrix(num_rounds, strategy.init(0))[:, 0]
        squared = float(toeplitz.minsep_sensitivity_squared(column, separation, None, num_rounds))
        assert strategy.sensitivity(num_rounds, separation) ** 2 == pytest.approx(squared, rel=1e-4)
        errors = np.asarray(toeplitz.per_query_error(strategy_coef=column, n=num_rounds), dtype=np.float64)
        assert strategy.errors**2 == pytest.approx(errors, rel=1e-4)


def test_their_buffers_make_the_same_matrix() -> None:
    buffered = pytest.importorskip("jax_privacy.matrix_factorization.buffered_toeplitz", exc_type=ImportError)
    strategy = buffered_linear_toeplitz(500, 2, 100)
    state = strategy.init(0)
    theirs = buffered.BufferedToeplitz.build(
        buf_decay=state["theta"].numpy(), output_scale=state["omega"].numpy(), dtype=np.float64
    )
    coefficients = np.asarray(theirs.toeplitz_coefs(500), dtype=np.float64)
    assert strategy.matrix(500, state)[:, 0] == pytest.approx(coefficients, rel=1e-4)
    inverse = np.asarray(theirs.inverse().toeplitz_coefs(500), dtype=np.float64)
    assert strategy.growth == pytest.approx(np.sqrt(np.cumsum(inverse**2)), rel=1e-4)


def test_what_b_min_separation_gives_away_is_theirs_by_other_draws() -> None:
    """The logarithm of the likelihood ratio to rounding, and delta by users' own coins within its error.

    Of two bands: of more, jax-privacy 2.0 has the lengths of the last rounds' columns in reverse order.
    """
    batches = pytest.importorskip("jax_privacy.batch_selection", exc_type=ImportError)
    theirs = pytest.importorskip("jax_privacy.experimental.monte_carlo.sample_generation", exc_type=ImportError)
    num_rounds, bands, rate, multiplier = 40, 2, 0.05, 0.9
    column = optimal_coefficients(num_rounds, bands)
    strategy = batches.BMinSepSampling(rate_when_free(rate, bands), num_rounds, bands)
    rows = multiplier * np.random.default_rng(0).standard_normal((num_rounds, 20)) + 0.3
    ours = log_likelihood_ratio(iter(rows / multiplier), column / multiplier, rate)
    for number in range(20):
        found = theirs.compute_privacy_loss(strategy, rows[:, number], multiplier, column)
        assert ours[number] == pytest.approx(float(found), rel=1e-9)
    losses = np.asarray(theirs.get_privacy_loss_sample(strategy, multiplier, column, seed=0, num_samples=4000)[0])
    eps = monte_carlo_epsilon(Coins(column / multiplier, rate, num_rounds), 0.02)
    given_away = -np.expm1(np.minimum(eps - losses, 0.0))
    assert given_away.mean() == pytest.approx(0.02 / 1.15, abs=0.15 * 0.02 + 4 * given_away.std() / math.sqrt(4000))
