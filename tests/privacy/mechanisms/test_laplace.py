from __future__ import annotations

import math

import pytest
import torch

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.mechanisms import CohortStats, PrivacyOptions, make_mechanism
from fedflair.privacy.mechanisms.clipping import exact_grid
from fedflair.sampling import SamplerDescription

SAMPLER = SamplerDescription("poisson", 20, 400)


def test_scale_is_the_l1_bound_over_epsilon() -> None:
    mechanism = make_mechanism(PrivacyOptions("laplace", 0.5, 1e-5, clipping_bound=3.0), SAMPLER, 10, 1)
    total, _ = mechanism.add_noise(torch.zeros(500_000), CohortStats(20, 0, 0), 0, {})
    assert float(total.abs().mean()) == pytest.approx(6.0, rel=0.01)
    assert mechanism.noise_std({}, 0) == pytest.approx(6.0 * math.sqrt(2))
    assert float(total.std()) == pytest.approx(mechanism.noise_std({}, 0), rel=0.01)


def test_updates_are_clipped_in_l1() -> None:
    mechanism = make_mechanism(PrivacyOptions("laplace", clipping_bound=3.5, delta=1e-5), SAMPLER, 10, 1)
    update = torch.tensor([3.0, -4.0])
    assert mechanism.clip(update, mechanism.clipping_bound({})).norm == 7.0
    # Cut towards zero, to a multiple of the grid on which sums are exact.
    assert update.tolist() == pytest.approx([1.5, -2.0], abs=exact_grid(3.5, SAMPLER.cohort_size))
    assert float(update.double().abs().sum()) <= 3.5


def test_it_says_what_the_rounds_compose_to() -> None:
    facts = make_mechanism(PrivacyOptions("laplace", 0.5, 1e-5), SAMPLER, 10, 1).description
    assert facts["epsilon_per_round"] == 0.5
    assert facts["epsilon"] == epsilon(PrivacyEvent("laplace", 2.0, 10, "poisson", 0.05), 1e-5)
    assert 0.0324 < facts["epsilon"] < 0.5


def test_what_has_no_accounting_is_refused() -> None:
    with pytest.raises(PrivacyError, match="cohort_sampling: laplace"):
        make_mechanism(PrivacyOptions("laplace", delta=1e-5), SamplerDescription("fixed", 20, 400), 10, 1)
    with pytest.raises(ConfigError, match="central_order: laplace protects norms of order 1, not 2"):
        make_mechanism(PrivacyOptions("laplace", delta=1e-5, order=2.0), SAMPLER, 10, 1)
