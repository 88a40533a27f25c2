from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from fedflair.audit.game import advantage
from fedflair.audit.scores import log_likelihood_ratio
from fedflair.audit.statistics import (
    as_normal,
    largest_correlation,
    largest_repetition,
    least_square,
    lower_bound,
    most_right,
    refutes,
)
from fedflair.privacy.accounting.events import PrivacyEvent


def _most_likely(epsilon: float, delta: float, num_canaries: int, num_right: int) -> float:
    """The largest chance of so many right guesses that is not refuted."""
    low, high = 1e-9, 1.0
    for _ in range(60):
        middle = math.sqrt(low * high)
        if refutes(epsilon, delta, num_canaries, num_canaries, num_right, middle):
            high = middle
        else:
            low = middle
    return low


@pytest.mark.parametrize(("epsilon", "num_right"), [(0.0, 30), (0.5, 35), (1.0, 38), (1.0, 40), (2.0, 40)])
def test_no_chance_that_a_private_run_has_is_refuted_and_hardly_a_larger_one(epsilon: float, num_right: int) -> None:
    """Of all (epsilon, 0)-private runs, randomised response of each coin has the most right guesses, at this chance."""
    chance = float(binom.sf(num_right - 1, 40, 1 / (1 + math.exp(-epsilon))))
    assert chance * (1 - 1e-9) <= _most_likely(epsilon, 0.0, 40, num_right) < 1.5 * chance


def test_delta_is_a_chance_that_everything_is_told() -> None:
    """A run that tells all with probability delta, and nothing otherwise, is (0, delta)-private."""
    assert not refutes(0.0, 0.01, 500, 500, 500, 0.0099)
    assert refutes(0.0, 0.01, 500, 500, 500, 0.03)


def test_the_bound_holds_for_randomised_response_and_comes_near() -> None:
    """Each coin is told right with probability e/(1+e): exactly (1, 0)-private."""
    random = np.random.default_rng(5)
    bounds = []
    for _ in range(100):
        coins = random.random(1000) < 0.5
        told = coins ^ (random.random(1000) > math.e / (1 + math.e))
        bounds.append(lower_bound(told + random.random(1000) * 1e-6, coins, 0.0, 0.05))
    assert np.mean(np.array(bounds) > 1.0) <= 0.05
    assert np.median(bounds) > 0.78


def test_coins_known_for_certain_refute_any_small_epsilon() -> None:
    coins = np.arange(1000) % 2 == 0
    # All 1,000 guesses right: right ** 1000 = 0.05 / 4 at the bound.
    right = (0.05 / 4) ** (1 / 1000)
    assert lower_bound(coins.astype(float), coins, 0.0, 0.05) == pytest.approx(math.log(right / (1 - right)), rel=0.01)
    assert lower_bound(np.random.default_rng(6).random(1000), coins, 1e-5, 0.05) < 0.5


def test_so_many_right_guesses_have_the_level() -> None:
    most = most_right(0.3, 1000, 0.01)
    assert binom.sf(most, 1000, 0.65) <= 0.01 < binom.sf(most - 1, 1000, 0.65)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        # Two normals at distance d differ by 2 Phi(d/2) - 1 in total variation.
        (PrivacyEvent("gaussian", 2.0, 1), 2 * norm.cdf(0.25) - 1),
        (PrivacyEvent("gaussian", 2.0, 9), 2 * norm.cdf(0.75) - 1),
        (PrivacyEvent("gaussian", 2.0, 9, neighbouring="replace_one"), 2 * norm.cdf(1.5) - 1),
        # A client that is drawn half of the time.
        (PrivacyEvent("gaussian", 2.0, 1, "poisson", 0.5), norm.cdf(0.25) - 0.5),
        (PrivacyEvent("gaussian", 2.0, 1, "fixed", 0.5, "replace_one"), norm.cdf(0.5) - 0.5),
        # Two Laplace densities of scale 1 at distance d: 1 - exp(-d/2).
        (PrivacyEvent("laplace", 2.0, 1), 1 - math.exp(-0.25)),
        (PrivacyEvent("laplace", 2.0, 1, neighbouring="replace_one"), 1 - math.exp(-0.5)),
    ],
)
def test_the_advantage_is_the_total_variation(event: PrivacyEvent, expected: float) -> None:
    assert advantage(event, 1.0) == pytest.approx(expected, abs=2e-4)
    assert advantage(event, 0.25) < expected / 2


def test_scores_guess_right_as_often_as_anybody_can() -> None:
    """For 200,000 canaries: the share of right guesses by the sign of the score is (1 + advantage) / 2."""
    event = PrivacyEvent("gaussian", 2.0, 4, "poisson", 0.3)
    random = np.random.default_rng(7)
    heads = random.random(200_000) < 0.5
    joins = (random.random((4, len(heads))) < 0.3) & heads
    seen = joins / 2.0 + random.standard_normal(joins.shape)
    scores = log_likelihood_ratio(seen, np.ones(4), event).sum(axis=0)
    assert ((scores > 0) == heads).mean() == pytest.approx((1 + advantage(event, 1.0)) / 2, abs=0.003)


def test_chances_of_noise() -> None:
    random = np.random.default_rng(8)
    squares = (random.standard_normal((20_000, 10)) ** 2).mean(axis=1)
    assert (squares < least_square(0.01, 10)).mean() == pytest.approx(0.01, abs=0.003)
    normal = as_normal(random.laplace(size=100_000))
    assert (normal.mean(), normal.std()) == pytest.approx((0.0, 1.0), abs=0.01)
    assert ((normal**4).mean()) == pytest.approx(3.0, rel=0.05)


def test_repetitions_are_found_where_they_are() -> None:
    rows = np.random.default_rng(9).standard_normal((6, 1000))
    assert largest_repetition(rows)[0] < 0.07
    assert largest_correlation(rows)[0] < 0.15
    repeated = rows.copy()
    repeated[:, 200:400] = rows[:, :200]
    found, lag = largest_repetition(repeated)
    assert lag == 200
    assert found == pytest.approx(0.2, abs=0.05)
    repeated[4] = -repeated[1]
    assert largest_correlation(repeated) == (pytest.approx(1.0), 1, 4)
