"""The whole curve, and several clients at once: against closed forms, and never above what an attack reaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, norm

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.accounting.together import gaussian_mu, zcdp
from fedflair.privacy.accounting.trade_off import group_epsilon, points_of_curve, trade_off

POISSON = PrivacyEvent("gaussian", 1.0, 12, "poisson", 0.05)
FIXED = PrivacyEvent("gaussian", 4.0, 10, "fixed", 0.1, "replace_one")


def test_gaussian_noise_alone_has_the_curve_of_two_normal_distributions() -> None:
    event = PrivacyEvent("gaussian", 4.0, 9, neighbouring="replace_one")
    assert gaussian_mu(event) == pytest.approx(1.5, rel=1e-12)
    assert zcdp(event) == pytest.approx(1.125, rel=1e-12)
    type_1, type_2 = points_of_curve(trade_off(event, 1e-5))
    assert (type_1[0], type_2[0], type_1[-1], type_2[-1]) == (0.0, 1.0, 1.0, 0.0)
    assert np.allclose(type_2[1:-1], norm.cdf(norm.isf(type_1[1:-1]) - 1.5), atol=1e-15)
    assert np.all(np.diff(type_1) > 0)


def test_the_curve_of_one_sampled_release_is_that_of_the_best_test() -> None:
    """Neyman and Pearson: all that tests of (1 - q) N(0) + q N(1) against N(0) reach, in both orders."""
    q, sigma = 0.1, 0.8
    curve = trade_off(PrivacyEvent("gaussian", sigma, 1, "poisson", q), 1e-6)
    x = np.linspace(-5, 7, 400)
    pure = norm.sf(x, scale=sigma)
    mixed = (1 - q) * pure + q * norm.sf(x - 1, scale=sigma)
    reached = 1 - mixed
    least = curve.type_2(pure)
    assert np.all(least <= reached + 1e-9)
    assert np.all(curve.type_2(1 - mixed) <= pure + 1e-9)
    # Tight where the mixture is likelier, whose order is the worse one; in between convexity lies below both orders.
    likelier = (1 - q) + q * np.exp((x - 0.5) / sigma**2) > 1.05
    assert float((reached - least)[likelier].max()) < 1e-4


def test_the_curve_holds_what_epsilon_does_and_is_one_for_both_orders() -> None:
    for event in (POISSON, FIXED):
        curve = trade_off(event, 1e-5)
        found = epsilon(event, 1e-5)
        type_1, type_2 = points_of_curve(curve)
        # No line of the pair lies above the curve by more than the grid's share.
        assert np.all(type_2 >= 1 - 1e-5 * 1.01 - np.exp(found) * type_1 - 1e-9)
        assert np.all(np.diff(type_2) <= 0)
        assert np.all((type_2 >= 0) & (type_2 <= 1 - type_1 + 1e-9))
        # Symmetric: the error of the first kind at the error of the second is that of the first again.
        middle = (type_2 > 1e-3) & (type_2 < 1 - 1e-3)
        assert np.allclose(curve.type_2(type_2[middle]), type_1[middle], atol=5e-4)


def test_without_noise_there_is_no_curve() -> None:
    with pytest.raises(PrivacyError, match="curve: without noise"):
        trade_off(replace(POISSON, noise_multiplier=0.0), 1e-5)


def test_sampling_lowers_neither_mu_nor_rho_and_laplace_noise_has_a_rho() -> None:
    assert gaussian_mu(POISSON) == pytest.approx(12**0.5)
    assert gaussian_mu(replace(FIXED, neighbouring="zero_out")) == gaussian_mu(FIXED) == pytest.approx(10**0.5 / 2)
    one = PrivacyEvent("laplace", 2.0, 3)
    assert zcdp(one) == pytest.approx(3 * 0.5**2 / 2)
    assert zcdp(replace(one, sampling="poisson", sampling_rate=0.1)) == pytest.approx(
        3 * np.log1p(0.1 * np.expm1(0.5)) ** 2 / 2
    )


@pytest.mark.parametrize("noise", ["gaussian", "laplace"])
def test_a_group_without_sampling_is_a_client_who_moves_sums_that_much_further(noise: str) -> None:
    event = PrivacyEvent(noise, 9.0, 5)  # type: ignore[arg-type]
    assert group_epsilon(event, 3, 1e-5) == epsilon(replace(event, noise_multiplier=3.0), 1e-5)
    assert group_epsilon(event, 1, 1e-5) == epsilon(event, 1e-5)


@pytest.mark.parametrize(("event", "apart"), [(POISSON, False), (POISSON, True), (FIXED, False)])
def test_a_group_costs_less_than_its_number_of_times_and_more_than_it_can_show(
    event: PrivacyEvent, apart: bool
) -> None:
    size, delta = 3, 1e-5
    found, alone = group_epsilon(event, size, delta, apart=apart), epsilon(event, delta)
    # The group privacy of (epsilon, delta), from the least delta that keeps the sum of deltas: size times and more.
    share = delta * np.expm1(alone) / np.expm1(size * alone)
    assert alone < found < size * epsilon(event, share)
    if event.sampling == "poisson":
        # One release of a binomial number of the three, at the epsilon that was found.
        one = group_epsilon(replace(event, count=1), size, delta, apart=apart)
        x = np.linspace(-9, 12, 40_001)
        pure = norm.pdf(x)
        chances = binom.pmf(np.arange(size + 1), size, event.sampling_rate)
        mixed = sum(p * norm.pdf(x - k) for k, p in enumerate(chances))
        given_away = np.trapezoid(np.maximum(mixed - np.exp(one) * pure, 0), x)
        assert given_away <= delta
        # Without being told when they take part, a chain of neighbours is no more than a few times off.
        assert apart or given_away > 0.9 * delta
