from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from fedflair.audit.statistics import estimate, gaussian_epsilon, lower_bound, p_value
from fedflair.privacy.accounting.accountants import PrivacyEvent, epsilon


def test_p_value_without_delta_is_a_binomial_tail() -> None:
    right = math.e / (1 + math.e)
    assert p_value(100, 30, 25, 1.0, 0.0) == pytest.approx(sum(binom.pmf(k, 30, right) for k in range(25, 31)))
    assert p_value(100, 30, 0, 1.0, 0.0) == 1.0


def test_p_value_with_delta_against_its_definition() -> None:
    right = 1 / (1 + math.exp(-0.5))
    tail = [sum(binom.pmf(k, 40, right) for k in range(v, 41)) for v in range(42)]
    expected = tail[33] + 2 * 200 * 1e-3 * max((tail[33 - i] - tail[33]) / i for i in range(1, 34))
    assert p_value(200, 40, 33, 0.5, 1e-3) == pytest.approx(expected)


def test_the_bound_holds_for_randomised_response_and_comes_near() -> None:
    """Each coin is told right with probability e/(1+e): exactly (1, 0)-private."""
    random = np.random.default_rng(5)
    bounds = []
    for _ in range(200):
        coins = random.random(1000) < 0.5
        told = coins ^ (random.random(1000) > math.e / (1 + math.e))
        bounds.append(lower_bound(told + random.random(1000) * 1e-6, coins, 0.0))
    assert np.mean(np.array(bounds) > 1.0) <= 0.05
    assert np.median(bounds) > 0.75


def test_coins_known_for_certain_refute_any_small_epsilon() -> None:
    coins = np.arange(1000) % 2 == 0
    # All 1,000 guesses right: right ** 1000 = 0.05 / 4 at the bound.
    right = (0.05 / 4) ** (1 / 1000)
    assert lower_bound(coins.astype(float), coins, 0.0) == pytest.approx(math.log(right / (1 - right)), rel=0.01)
    assert lower_bound(np.random.default_rng(6).random(1000), coins, 1e-5) < 0.5


@pytest.mark.parametrize("distance", [0.3, 1.0, 3.0])
def test_epsilon_of_two_equal_normals_is_the_analytic_one(distance: float) -> None:
    expected = epsilon(PrivacyEvent("gaussian", 1 / distance, 1), 1e-5)
    assert gaussian_epsilon((5 + 2 * distance, 2.0), (5.0, 2.0), 1e-5) == pytest.approx(expected, rel=1e-3)
    assert gaussian_epsilon((5.0, 2.0), (5 + 2 * distance, 2.0), 1e-5) == pytest.approx(expected, rel=1e-3)


def test_epsilon_of_normals_of_different_width_against_their_integral() -> None:
    found = gaussian_epsilon((0.4, 1.2), (0.0, 1.0), 1e-3)
    x = np.linspace(-20, 20, 2_000_001)
    excess = np.maximum(norm.pdf(x, 0.4, 1.2) - math.exp(found) * norm.pdf(x), 0)
    assert np.trapezoid(excess, x) == pytest.approx(1e-3, rel=1e-3)
    assert gaussian_epsilon((0.0, 1.0), (0.0, 1.0), 1e-3) == 0.0


def test_estimate_is_the_worse_of_the_two_directions() -> None:
    """Canaries that are in have a wider or a narrower normal: what tells them from the others differs by direction."""
    random = np.random.default_rng(9)
    coins = np.arange(20_000) % 2 == 0
    wide, narrow = random.standard_normal(10_000) * 1.5 + 0.2, random.standard_normal(10_000)
    found = []
    for inside, outside in ((wide, narrow), (narrow, wide)):
        scores = np.empty(20_000)
        scores[coins], scores[~coins] = inside, outside
        found.append(estimate(scores, coins, 1e-3))
    one, other = (
        gaussian_epsilon((a.mean(), a.std(ddof=1)), (b.mean(), b.std(ddof=1)), 1e-3)
        for a, b in ((wide, narrow), (narrow, wide))
    )
    assert one > 2 * other
    assert found == [pytest.approx(one), pytest.approx(one)]


def test_estimate_of_a_known_distance() -> None:
    random = np.random.default_rng(8)
    coins = random.random(100_000) < 0.5
    scores = random.standard_normal(100_000) + 1.0 * coins
    assert estimate(scores, coins, 1e-5) == pytest.approx(epsilon(PrivacyEvent("gaussian", 1.0, 1), 1e-5), rel=0.05)
