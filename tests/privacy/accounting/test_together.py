"""Several runs at once, and the best of them alone: against one accountant's composition and against brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.accounting.together import epsilon_together, selection_epsilon

POISSON = PrivacyEvent("gaussian", 1.0, 12, "poisson", 0.05)
FIXED = PrivacyEvent("gaussian", 4.0, 10, "fixed", 0.1, "replace_one")


def test_equal_runs_are_one_run_of_all_their_rounds() -> None:
    assert epsilon_together([POISSON] * 3, 1e-5) == epsilon(replace(POISSON, count=36), 1e-5)
    assert epsilon_together([POISSON, replace(POISSON, count=5)], 1e-5) == epsilon(replace(POISSON, count=17), 1e-5)
    assert epsilon_together([], 1e-5) == epsilon_together([replace(POISSON, count=0)], 1e-5) == 0.0


def test_different_runs_compose_to_what_equal_ones_would() -> None:
    nearly = replace(POISSON, noise_multiplier=1.0 + 1e-9)
    together = epsilon_together([POISSON, nearly], 1e-5)
    assert together == pytest.approx(epsilon(replace(POISSON, count=24), 1e-5), rel=3e-4)
    assert together >= epsilon(replace(nearly, count=24), 1e-5)


def test_gaussians_without_sampling_add_up_exactly() -> None:
    events = [PrivacyEvent("gaussian", 2.0, 3), PrivacyEvent("gaussian", 5.0, 7)]
    mu = math.sqrt(3 / 4 + 7 / 25)
    assert epsilon_together(events, 1e-5) == pytest.approx(
        epsilon(PrivacyEvent("gaussian", 1 / mu, 1), 1e-5), rel=1e-12
    )


def test_runs_of_all_kinds_cost_more_than_each_and_less_than_the_sum() -> None:
    events = [POISSON, FIXED, PrivacyEvent("laplace", 20.0, 4), PrivacyEvent("gaussian", 9.0, 2)]
    alone = [epsilon(event, 1e-5) for event in events]
    assert max(alone) < epsilon_together(events, 1e-5) < sum(alone)
    assert epsilon_together([*events, replace(POISSON, noise_multiplier=0.0)], 1e-5) == math.inf
    with pytest.raises(PrivacyError, match="raise delta"):
        epsilon_together([POISSON, replace(POISSON, noise_multiplier=2.0)], 1e-12)


@pytest.mark.parametrize(("sigma", "expected_runs"), [(1.0, 3.0), (2.0, 20.0), (4.0, 5.0)])
def test_the_best_of_a_geometric_number_of_runs_gives_no_more_away(sigma: float, expected_runs: float) -> None:
    """Where the largest release is the best, its distribution has a closed form, whatever the number's mean."""
    delta = 1e-5
    found = selection_epsilon(PrivacyEvent("gaussian", sigma, 1), expected_runs, delta)
    assert epsilon(PrivacyEvent("gaussian", sigma, 1), delta) < found
    x, stop = np.linspace(-10 * sigma, 12 * sigma, 100_001), 1 / expected_runs

    def density_of_best(mean: float) -> np.ndarray:
        below = norm.cdf(x, mean, sigma)
        return stop * norm.pdf(x, mean, sigma) / (1 - (1 - stop) * below) ** 2

    here, there = density_of_best(1.0), density_of_best(0.0)
    assert np.trapezoid(here, x) == pytest.approx(1, abs=1e-6)
    for one, other in ((here, there), (there, here)):
        assert np.trapezoid(np.maximum(one - math.exp(found) * other, 0), x) <= delta


def test_the_best_run_alone_costs_less_than_showing_all_of_them() -> None:
    for event in (PrivacyEvent("gaussian", 20.0, 100), replace(FIXED, noise_multiplier=20.0)):
        assert selection_epsilon(event, 50, 1e-5) < epsilon_together([event] * 50, 1e-5)
    with pytest.raises(PrivacyError, match="rdp has no bound"):
        selection_epsilon(replace(POISSON, neighbouring="replace_one"), 5, 1e-5)
