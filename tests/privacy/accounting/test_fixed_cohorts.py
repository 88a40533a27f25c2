"""Cohorts of fixed size: against brute force, from below, and against another accountant's composition."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prv_accountant import PRVAccountant
from prv_accountant.privacy_random_variables import PrivacyRandomVariable
from scipy.stats import norm

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.accountants import epsilon, resolve_accountant
from fedflair.privacy.accounting.calibration import calibrate
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.accounting.fixed_cohorts import fixed_cohort_losses, fixed_group_losses
from fedflair.privacy.accounting.persons import person_epsilon
from fedflair.privacy.accounting.trade_off import group_epsilon
from tests.properties import examples

Array = npt.NDArray[np.float64]


def fixed(noise_multiplier: float, count: int, rate: float) -> PrivacyEvent:
    return PrivacyEvent("gaussian", noise_multiplier, count, "fixed", rate, "replace_one")


def everybody_against_one(event: PrivacyEvent, delta: float) -> float:
    """Epsilon of two lists that there are: all contribute -1, but one of the first list's, who contributes +1."""
    return epsilon(
        PrivacyEvent("gaussian", event.noise_multiplier / 2, event.count, "poisson", event.sampling_rate), delta
    )


@pytest.mark.parametrize(
    ("event", "by_renyi", "by_losses", "opposite", "against_one"),
    [
        (fixed(4.0, 100, 0.1), 5.379, 2.541, 1.990, 2.337),
        # A run of FLAIR: 200 of its 41,131 users in each of 5,000 rounds.
        (fixed(1.2, 5000, 200 / 41131), 12.884, 8.940, 2.421, 7.499),
    ],
)
def test_losses_bound_what_renyi_divergence_makes_twice_as_large(
    event: PrivacyEvent, by_renyi: float, by_losses: float, opposite: float, against_one: float
) -> None:
    assert epsilon(event, 1e-5, "rdp") == pytest.approx(by_renyi, abs=1e-3)
    assert epsilon(event, 1e-5) == pytest.approx(by_losses, abs=1e-3)
    # Two lower bounds: a client who contributes +1 or -1 among others who contribute 0, or who all contribute -1.
    zeros = PrivacyEvent("gaussian", event.noise_multiplier, event.count, "poisson", event.sampling_rate, "replace_one")
    assert epsilon(zeros, 1e-5) == pytest.approx(opposite, abs=1e-3)
    assert everybody_against_one(event, 1e-5) == pytest.approx(against_one, abs=1e-3)


class FixedCohort(PrivacyRandomVariable):  # type: ignore[misc]
    """The loss of one sum as another library composes it, from its distribution function written out here."""

    def __init__(self, sigma: float, rate: float) -> None:
        self.sigma, self.rate = sigma, rate

    def cdf(self, t: Array) -> Array:
        """Where log(R/Q) is t > 0, R has the mass above; the opposite losses have that of Q there."""
        size = np.maximum(np.abs(np.asarray(t, dtype=np.float64)), 1e-300)
        x = self.sigma**2 * np.log1p(np.expm1(size) / self.rate) + 0.5
        below_q, below_p = norm.cdf(x / self.sigma), norm.cdf((x - 1) / self.sigma)
        positive = (1 - self.rate) * below_q + self.rate * below_p
        return np.where(t >= 0, positive, norm.sf(x / self.sigma))

    def mean(self) -> float:
        t = np.linspace(1e-9, 20, 200_001)
        return float(np.trapezoid(1 - self.cdf(t) - self.cdf(-t), t))

    def rdp(self, alpha: float) -> float:
        """For the range of losses that is looked at only; without sampling there are more."""
        return alpha / (2 * self.sigma**2)


def test_another_library_composes_to_the_same() -> None:
    other = PRVAccountant(prvs=[FixedCohort(2.0, 0.1)], max_self_compositions=[100], eps_error=5e-3, delta_error=1e-9)
    low, _, high = other.compute_epsilon(delta=1e-5, num_self_compositions=[100])
    assert low <= epsilon(fixed(4.0, 100, 0.1), 1e-5) <= high


def hockey_stick(first: Array, second: Array, x: Array, ratio: float) -> float:
    return float(np.trapezoid(np.maximum(first - ratio * second, 0), x))


def sampled_sum(contributions: list[float], cohort: int, sigma: float, x: Array) -> Array:
    """The density of the noisy sum over a cohort, all cohorts being as likely."""
    sums = [sum(chosen) for chosen in combinations(contributions, cohort)]
    return np.asarray(np.mean([norm.pdf(x, total, sigma) for total in sums], axis=0))


CONTRIBUTION = st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0])


@examples(30)
@given(
    others=st.lists(CONTRIBUTION, min_size=1, max_size=4),
    replaced=st.lists(st.tuples(CONTRIBUTION, CONTRIBUTION), min_size=1, max_size=3),
    cohort=st.integers(1, 6),
    sigma=st.sampled_from([0.7, 1.5, 4.0]),
)
def test_no_two_small_lists_give_more_away(
    others: list[float], replaced: list[tuple[float, float]], cohort: int, sigma: float
) -> None:
    """Pairs of lists of up to seven clients that differ in one to three, at epsilons of both signs."""
    size = len(others) + len(replaced)
    cohort = min(cohort, size - 1)
    # What is lost where the integrand begins: its slope times the squared step over 8, here 2e-6 at most.
    x = np.linspace(-32, 32, 16_001)
    here, there = (sampled_sum([*others, *own], cohort, sigma, x) for own in zip(*replaced))
    bound = fixed_group_losses(sigma, cohort, size, len(replaced), 1e-2, 1e-9)
    if len(replaced) == 1:
        bound = fixed_cohort_losses(sigma / 2, cohort / size, 1e-2)
    for eps in (-1.5, -0.4, -0.05, 0.0, 0.05, 0.4, 1.5, 4.0):
        assert hockey_stick(here, there, x, math.exp(eps)) <= bound.get_delta_for_epsilon(eps) + 1e-5


def test_two_sums_of_small_lists_give_no_more_away_than_two_are_bounded_by() -> None:
    """The composition, on the plane of both sums; the second list's clients may follow from the first sum."""
    sigma, x = 1.0, np.linspace(-9, 9, 721)
    far, near, one = (sampled_sum(own, 1, sigma, x) for own in ([1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]))
    bound = fixed_cohort_losses(sigma / 2, 0.5, 1e-4).self_compose(2)
    # Whoever sees a first sum above 0 goes on with lists in the other order.
    second = np.where((x > 0)[:, None], one[None, :], far[None, :]), np.where((x > 0)[:, None], far, near)
    here, there = far[:, None] * second[0], near[:, None] * second[1]
    for pair in ((here, there), (there, here)):
        for eps in (0.0, 0.5, 1.5, 3.0):
            outer = np.maximum(pair[0] - math.exp(eps) * pair[1], 0)
            given_away = float(np.trapezoid(np.trapezoid(outer, x), x))
            assert given_away <= bound.get_delta_for_epsilon(eps) + 1e-6
    # The two halves are both needed: what one of them composes to is less than these lists give away.
    assert bound.get_delta_for_epsilon(0.5) > 0.05


def test_a_group_of_one_is_a_client() -> None:
    one, group = fixed_cohort_losses(2.0, 0.1, 1e-3), fixed_group_losses(4.0, 30, 300, 1, 1e-3, 1e-9)
    for eps in (-0.5, 0.0, 0.01, 0.2):
        assert group.get_delta_for_epsilon(eps) == pytest.approx(one.get_delta_for_epsilon(eps), rel=1e-9)


@pytest.mark.parametrize(
    ("event", "sizes", "group", "chain", "drawn", "least"),
    [
        (fixed(4.0, 100, 0.1), (100, 1000), 2, 5.678, 5.678, 5.180),
        (fixed(4.0, 100, 0.1), (100, 1000), 10, 1462.3, 52.31, 40.15),
        # Of FLAIR's users.
        (fixed(4.0, 5000, 200 / 41131), (200, 41131), 10, 33.2, 11.36, 9.149),
    ],
)
def test_a_group_costs_what_the_number_of_it_in_a_cohort_makes_it_cost(
    event: PrivacyEvent, sizes: tuple[int, int], group: int, chain: float, drawn: float, least: float
) -> None:
    """least: about what lists that there are give away, in which all contribute -1 and the group comes to send +1."""
    assert group_epsilon(event, group, 1e-5) == pytest.approx(chain, rel=1e-3)
    assert group_epsilon(event, group, 1e-5, drawn_from=sizes) == pytest.approx(drawn, rel=1e-3)
    opposite = PrivacyEvent("gaussian", event.noise_multiplier / 2, event.count, "poisson", event.sampling_rate)
    assert person_epsilon(opposite, group, 1e-5) == pytest.approx(least, rel=5e-3)


def test_one_sum_is_bounded_exactly() -> None:
    for event in (fixed(4.0, 1, 0.1), fixed(0.9, 1, 0.01)):
        assert epsilon(event, 1e-6) == pytest.approx(everybody_against_one(event, 1e-6), rel=1e-6)


@examples(10)
@given(multiplier=st.floats(0.5, 20), rate=st.floats(1e-3, 0.9), count=st.integers(1, 30), log_delta=st.floats(-8, -2))
def test_the_bound_lies_between_two_lists_that_there_are_and_no_sampling_at_all(
    multiplier: float, rate: float, count: int, log_delta: float
) -> None:
    event, delta = fixed(multiplier, count, rate), 10**log_delta
    everybody = PrivacyEvent("gaussian", multiplier, count, neighbouring="replace_one")
    found = epsilon(event, delta)
    assert everybody_against_one(event, delta) * (1 - 1e-4) <= found <= epsilon(everybody, delta) * (1 + 1e-4)


def test_a_finer_grid_changes_nothing_and_everybody_in_the_cohort_is_no_sampling() -> None:
    event = fixed(4.0, 100, 0.1)
    fine = fixed_cohort_losses(2.0, 0.1, 1e-4).self_compose(100).get_epsilon_for_delta(1e-5)
    assert fine <= epsilon(event, 1e-5) <= fine * (1 + 3e-5)
    assert epsilon(fixed(4.0, 10, 1.0), 1e-5) == epsilon(PrivacyEvent("gaussian", 2.0, 10), 1e-5)


def test_calibration_takes_less_noise_than_by_renyi_and_keeps_the_budget() -> None:
    event = fixed(0.0, 100, 0.1)
    multiplier = calibrate(event, 2.0, 1e-5)
    assert 1.999 < epsilon(fixed(multiplier, 100, 0.1), 1e-5) <= 2.0
    # By Renyi divergence that noise does not do.
    assert epsilon(fixed(multiplier, 100, 0.1), 1e-5, "rdp") > 4


def test_what_losses_are_not_exact_for_is_accounted_by_renyi() -> None:
    event = fixed(2.0, 10, 0.1)
    assert [resolve_accountant(event, "auto", delta) for delta in (1e-5, 1e-12)] == ["pld", "rdp"]
    assert resolve_accountant(event, "rdp", 1e-5) == "rdp"
    with pytest.raises(PrivacyError, match="pld is not exact at a delta of 1e-12"):
        resolve_accountant(event, "pld", 1e-12)
