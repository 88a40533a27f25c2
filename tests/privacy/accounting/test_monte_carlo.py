"""Epsilon under b-min-separation: against exact integrals, another way of drawing, and bounds on both sides."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting import monte_carlo
from fedflair.privacy.accounting.accountants import epsilon, resolve_accountant
from fedflair.privacy.accounting.b_min_separation import log_likelihood_ratio, rate_when_free
from fedflair.privacy.accounting.calibration import calibrate
from fedflair.privacy.accounting.events import PrivacyEvent, event_of, in_turns, without_sampling
from fedflair.privacy.accounting.monte_carlo import Coins, estimated_epsilon, moment_epsilon, monte_carlo_epsilon
from fedflair.privacy.accounting.together import epsilon_together, gaussian_mu, selection_epsilon, zcdp
from fedflair.privacy.accounting.trade_off import group_epsilon, trade_off
from fedflair.privacy.toeplitz import optimal_coefficients

Array = npt.NDArray[np.float64]
# What a proof may lie above the truth: the slack of delta that it is given, as epsilon falls as steeply as here.
CLOSE = 0.02


def spaced(multiplier: float, num_rounds: int, rate: float, column: tuple[float, ...]) -> PrivacyEvent:
    return PrivacyEvent("gaussian", multiplier, num_rounds, "b_min_separation", rate, "zero_out", column)


def banded(multiplier: float, num_rounds: int, rate: float, bands: int) -> PrivacyEvent:
    return spaced(multiplier, num_rounds, rate, tuple(optimal_coefficients(num_rounds, bands).tolist()))


@pytest.mark.parametrize(("multiplier", "rate"), [(1.0, 0.1), (2.0, 0.3), (0.5, 0.02)])
def test_one_round_is_one_release_over_a_poisson_cohort(multiplier: float, rate: float) -> None:
    exact = epsilon(PrivacyEvent("gaussian", multiplier, 1, "poisson", rate), 1e-6)
    assert exact <= epsilon(spaced(multiplier, 1, rate, (1.0, 0.5)), 1e-6) <= exact * (1 + CLOSE)


@pytest.mark.parametrize("delta", [1e-3, 1e-7])
def test_two_rounds_are_what_the_integral_over_both_says(delta: float) -> None:
    multiplier, rate, column = 1.2, 0.2, (0.8, 0.6)
    x = np.linspace(-9, 12, 2101)
    rows = np.array(np.meshgrid(x, x)).reshape(2, -1)
    noise = np.exp(-(rows**2).sum(axis=0) / 2) / (2 * math.pi) * (x[1] - x[0]) ** 2
    ratio = np.exp(log_likelihood_ratio(iter(rows), np.array(column) / multiplier, rate))

    def given_away(eps: float) -> float:
        return float((np.maximum(ratio - math.exp(eps), 0) * noise).sum())

    found = epsilon(spaced(multiplier, 2, rate, column), delta)
    assert 0.8 * delta <= given_away(found) <= delta


def test_many_rounds_are_what_the_users_own_coins_say_at_a_large_delta() -> None:
    """Drawn as the sampler draws and not by moments: delta = E_P (1 - e^eps / L)_+."""
    num_rounds, rate, b, multiplier = 60, 0.05, 4, 0.8
    column = optimal_coefficients(num_rounds, b) / multiplier
    random, num_runs = np.random.default_rng(0), 40_000
    free_at = np.where(random.random(num_runs) < (b - 1) * rate, random.integers(1, b, num_runs), 0)
    means = np.zeros((num_rounds, num_runs))
    for round_ in range(num_rounds):
        joins = (free_at <= round_) & (random.random(num_runs) < rate_when_free(rate, b))
        free_at[joins] = round_ + b
        means[round_ : round_ + b, joins] += column[: num_rounds - round_, None]
    rows = means + random.standard_normal(means.shape)
    ratios = log_likelihood_ratio(iter(rows), column, rate)
    found = monte_carlo_epsilon(Coins(column, rate, num_rounds), 1e-2)
    given = -np.expm1(np.minimum(found - ratios, 0.0))
    error = given.std() / math.sqrt(num_runs)
    assert 1e-2 * 0.7 - 4 * error <= given.mean() <= 1e-2 + 4 * error
    assert error < 5e-4


@pytest.mark.parametrize(("b", "multiplier", "delta"), [(2, 0.7, 1e-6), (4, 2.0, 1e-5), (8, 1.0, 1e-7)])
def test_a_proof_lies_above_its_estimate_and_below_what_moments_and_no_sampling_prove(
    b: int, multiplier: float, delta: float
) -> None:
    event = banded(multiplier, 200, 0.02, b)
    coins = Coins(np.array(event.column) / multiplier, 0.02, 200)
    estimate, proof = estimated_epsilon(coins, delta), epsilon(event, delta)
    assert estimate <= proof < estimate * 1.2
    assert proof < epsilon(event, delta, "rdp") == moment_epsilon([(coins, 1)], delta)
    assert proof < epsilon(without_sampling(event), delta)
    # At this much noise the paper finds what groups that take turns cost, and less at less noise.
    assert proof < epsilon(in_turns(event), delta) * 1.005


def test_more_noise_rounds_and_coins_cost_what_they_should() -> None:
    def cost(multiplier: float, num_rounds: int, rate: float) -> float:
        return epsilon(banded(multiplier, num_rounds, rate, 4), 1e-6)

    base = cost(1.0, 100, 0.05)
    assert cost(1.2, 100, 0.05) < base < cost(1.0, 120, 0.05)
    assert base < cost(1.0, 100, 0.06)
    # Everybody in turns of four, by secret phases: no more than if the phases were known.
    assert cost(1.0, 100, 0.25) <= epsilon(PrivacyEvent("gaussian", 1.0, 25), 1e-6)


def test_without_enough_noise_to_compute_with_the_bound_is_that_of_no_sampling() -> None:
    event = spaced(0.02, 10, 0.1, (0.8, 0.6))
    assert epsilon(event, 1e-6) == epsilon(without_sampling(event), 1e-6) > 1000


@pytest.mark.parametrize(("multiplier", "num_rounds", "rate"), [(0.1, 20, 0.4999), (0.2, 100, 0.5)])
def test_losses_of_hundreds_are_what_they_are_without_sampling(multiplier: float, num_rounds: int, rate: float) -> None:
    event = banded(multiplier, num_rounds, rate, 2)
    assert 600 < epsilon(event, 1e-6) <= epsilon(without_sampling(event), 1e-6)


@pytest.mark.parametrize(("budget", "delta", "rate"), [(0.05, 0.2, 0.1), (50.0, 1e-6, 0.1), (300.0, 1e-6, 0.25)])
def test_budgets_near_nothing_and_beyond_all_protection_have_their_noise(
    budget: float, delta: float, rate: float
) -> None:
    multiplier = calibrate(banded(0.0, 30, rate, 4), budget, delta)
    assert budget * 0.99 <= epsilon(banded(multiplier, 30, rate, 4), delta) <= budget


def test_a_column_longer_than_1_costs_as_much_more_to_those_who_know_every_cohort() -> None:
    event = spaced(1.0, 4, 0.5, (1.6, 1.2))
    assert without_sampling(event) == PrivacyEvent("gaussian", 0.5, 2)
    # Everybody is in a secret one of two phases: halving the chance that a phase is known costs less than log 2.
    known = epsilon(PrivacyEvent("gaussian", 0.5, 2), 2e-6)
    assert epsilon(event, 1e-6) > known - math.log(2) - 1.0


@pytest.mark.parametrize("accountant", ["auto", "rdp"])
def test_calibration_keeps_the_budget(accountant: str) -> None:
    event = banded(0.0, 100, 0.05, 4)
    asked = "rdp" if accountant == "rdp" else "auto"
    multiplier = calibrate(event, 2.0, 1e-6, asked)
    assert 1.98 <= epsilon(banded(multiplier, 100, 0.05, 4), 1e-6, asked) <= 2.0


def test_fewer_runs_prove_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate is the same: what differs is how far a proof has to stay above it."""
    coins = Coins(optimal_coefficients(200, 2) / 0.7, 0.02, 200)
    proofs = [monte_carlo_epsilon(coins, 1e-6)]
    monkeypatch.setattr(monte_carlo, "_MOST_RUNS", 1 << 14)
    proofs.append(monte_carlo_epsilon(coins, 1e-6))
    monkeypatch.setattr(monte_carlo, "_WRONG", 1e-30)
    proofs.append(monte_carlo_epsilon(coins, 1e-6))
    assert proofs[0] * 1.003 < proofs[1] < proofs[2] / 1.003


def test_what_may_go_wrong_is_taken_from_delta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were half of it taken, and the first epsilon that is tried too small, the other half would have to be proven."""
    coins = Coins(optimal_coefficients(60, 2) / 0.9, 0.05, 60)
    of_half = monte_carlo_epsilon(coins, 5e-7)
    monkeypatch.setattr(monte_carlo, "_ALL_WRONG", 0.5)
    monkeypatch.setattr(monte_carlo, "_SLACK", -0.5)
    assert monte_carlo_epsilon(coins, 1e-6) == pytest.approx(of_half, rel=0.01)


def test_it_is_the_same_number_whenever_it_is_asked_for() -> None:
    coins = Coins(np.array([0.8, 0.6]) / 2, 0.1, 30)
    assert monte_carlo_epsilon(coins, 1e-6) == monte_carlo_epsilon(coins, 1e-6)


def test_an_event_is_plain_data_and_says_nothing_of_a_column_that_it_has_not() -> None:
    event = spaced(1.5, 20, 0.1, (0.8, 0.6))
    assert event_of(event.as_dict()) == event
    assert event.as_dict()["column"] == [0.8, 0.6]
    other = PrivacyEvent("gaussian", 1.0, 5, "poisson", 0.1)
    assert "column" not in other.as_dict()
    assert event_of(other.as_dict()) == other


def test_other_accountants_are_refused_with_the_reason() -> None:
    event = spaced(1.5, 20, 0.1, (0.8, 0.6))
    assert [resolve_accountant(event, asked, 1e-6) for asked in ("auto", "rdp")] == ["monte_carlo", "rdp"]
    with pytest.raises(PrivacyError, match="by monte_carlo or rdp; use auto"):
        resolve_accountant(event, "pld", 1e-6)
    with pytest.raises(PrivacyError, match="monte_carlo is of b_min_separation cohorts only"):
        resolve_accountant(PrivacyEvent("gaussian", 1.0, 5, "poisson", 0.1), "monte_carlo", 1e-6)
    with pytest.raises(PrivacyError, match="curve: none is known for b_min_separation"):
        trade_off(event, 1e-6)


def test_runs_together_groups_and_other_notions_of_privacy() -> None:
    event = spaced(2.0, 21, 0.1, (0.8, 0.6))
    assert epsilon_together([event], 1e-6) == epsilon(event, 1e-6)
    two = epsilon_together([event, event], 1e-6)
    coins = Coins(np.array([0.4, 0.3]), 0.1, 21)
    assert two == moment_epsilon([(coins, 2)], 1e-6)
    assert epsilon(event, 1e-6) < two < 2 * epsilon(event, 1e-6, "rdp")
    with pytest.raises(PrivacyError, match="composed with each other only"):
        epsilon_together([event, PrivacyEvent("gaussian", 1.0, 5)], 1e-6)
    with pytest.raises(PrivacyError, match="accounted for gaussian noise and zero_out"):
        epsilon_together([replace(event, neighbouring="replace_one")] * 2, 1e-6)
    # Without the help of sampling: 11 participations at most.
    assert gaussian_mu(event) == math.sqrt(11) / 2
    assert zcdp(event) == pytest.approx(11 / 8)
    assert group_epsilon(event, 3, 1e-6) == epsilon(PrivacyEvent("gaussian", 2.0 / 3, 11), 1e-6)
    assert selection_epsilon(event, 3.0, 1e-6) > epsilon(event, 1e-6)
