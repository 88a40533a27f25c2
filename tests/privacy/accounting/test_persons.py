"""What epsilon of artificial users is worth to a person whose images are in many of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, norm

from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.calibration import calibrate
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.accounting.persons import participations, person_epsilon

# The published private setting on artificial users: noise of cohorts of 5,000 of 6,918, scaled down to cohorts of 200.
PUBLISHED = PrivacyEvent("gaussian", 4.0762328, 5000, "poisson", 200 / 6918)


def test_the_published_setting() -> None:
    deployment = PrivacyEvent("gaussian", 0.0, 5000, "poisson", 5000 / 6918)
    assert calibrate(deployment, 2.0, 1e-5) / 25 == pytest.approx(PUBLISHED.noise_multiplier, rel=1e-4)
    found = [person_epsilon(PUBLISHED, groups, 1e-5) for groups in (1, 2, 8, 50)]
    assert found == [pytest.approx(value, rel=2e-3) for value in (2.047, 4.503, 25.19, 435.9)]


def test_one_round_by_hand() -> None:
    """delta(epsilon) of one release against an integral over the two densities, in both directions."""
    event, groups, delta = PrivacyEvent("gaussian", 1.3, 1, "poisson", 0.3), 3, 1e-4
    found = person_epsilon(event, groups, delta)
    assert found is not None
    x = np.linspace(-20, 25, 400_001)
    without = norm.pdf(x, 0, 1.3)
    chances = binom.pmf(range(4), 3, 0.3)
    present = sum(chance * norm.pdf(x, j, 1.3) for j, chance in enumerate(chances))

    def spent(at: float) -> float:
        ways = [np.maximum(p - np.exp(at) * q, 0).sum() for p, q in ((present, without), (without, present))]
        return float(max(ways) * (x[1] - x[0]))

    assert spent(found) <= delta
    assert spent(found * 0.99) > delta


def test_more_images_cost_more_and_one_costs_what_a_client_does() -> None:
    event = PrivacyEvent("gaussian", 2.0, 20, "poisson", 0.1)
    found = [person_epsilon(event, groups, 1e-5) for groups in (1, 2, 3, 10, 100)]
    assert found[0] == epsilon(event, 1e-5)
    assert found == sorted(found)  # type: ignore[type-var]
    everybody = [person_epsilon(replace(event, sampling_rate=1.0), groups, 1e-5) for groups in (2, 100)]
    assert everybody[0] == epsilon(PrivacyEvent("gaussian", 1.0, 20), 1e-5)
    assert found[-1] is not None
    assert everybody[1] is not None
    assert found[-1] < everybody[1]


def test_what_the_binomials_tail_leaves_out_is_bounded() -> None:
    chances, missed = participations(5000, 0.03, 1e-12)
    assert len(chances) < 300
    assert chances.sum() == pytest.approx(1.0)
    assert 0 < missed == binom.sf(len(chances) - 1, 5000, 0.03) <= 1e-12
    assert participations(2, 0.5, 1e-12)[1] == 0.0


@pytest.mark.parametrize(
    "event",
    [
        PrivacyEvent("laplace", 2.0, 20, "poisson", 0.1),
        PrivacyEvent("gaussian", 2.0, 20, "fixed", 0.1, "replace_one"),
    ],
)
def test_where_no_accountant_has_a_bound_there_is_none(event: PrivacyEvent) -> None:
    assert person_epsilon(event, 3, 1e-5) is None


def test_no_protection_is_not_worth_a_computation() -> None:
    """The bound without sampling is as good as any where one client alone has an epsilon of thousands."""
    event = PrivacyEvent("gaussian", 0.01, 210, "poisson", 0.05)
    assert epsilon(event, 1e-5) > 1000
    assert person_epsilon(event, 8, 1e-5) == epsilon(PrivacyEvent("gaussian", 0.01 / 8, 210), 1e-5)
    assert person_epsilon(replace(event, noise_multiplier=0.0), 8, 1e-5) == float("inf")
