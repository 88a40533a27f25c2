from __future__ import annotations

import numpy as np
import pytest

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import epsilon
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.contract import PrivacyOptions
from fedflair.privacy.mechanisms import make_mechanism
from fedflair.privacy.mechanisms.cyclic_sampling import sampler_for
from fedflair.privacy.mechanisms.separated_sampling import b_min_separation_sampler
from fedflair.privacy.toeplitz import optimal_coefficients, rounded_column
from fedflair.sampling import SamplerDescription

CLIENTS = [f"user-{k}" for k in range(2000)]
COHORTS = SamplerDescription("b_min_separation", 50, 2000)
BANDED = PrivacyOptions("banded_matrix_factorization", delta=1e-4, min_separation=8)


def joined(separation: int, cohort: int, num_rounds: int) -> np.ndarray:
    """Bool [rounds, clients]."""
    sampler = b_min_separation_sampler(CLIENTS, cohort, 3, separation)
    found = np.zeros((num_rounds, len(CLIENTS)), dtype=bool)
    for round_ in range(num_rounds):
        found[round_, [int(client.removeprefix("user-")) for client in sampler.sample(round_)]] = True
    return found


def test_nobody_comes_back_too_soon_and_somebody_at_once_afterwards() -> None:
    found = joined(12, 50, 300)
    gaps = np.concatenate([np.diff(np.flatnonzero(found[:, client])) for client in range(len(CLIENTS))])
    assert gaps.min() == 12


def test_every_round_is_as_large_from_the_first_on_and_who_is_free_joins_by_a_coin() -> None:
    separation, cohort = 10, 60
    found = joined(separation, cohort, 400)
    sizes = found.sum(axis=1)
    # Of every round's size the variance is at most that of coins of 0.03 each; five standard errors.
    assert sizes.mean() == pytest.approx(cohort, abs=5 * np.sqrt(60 / 400))
    assert sizes[:separation].mean() == pytest.approx(cohort, abs=5 * np.sqrt(60 / separation))
    free = np.ones_like(found)
    for lag in range(1, separation):
        free[lag:] &= ~found[:-lag]
    p = 0.03 / (1 - 9 * 0.03)
    chances = found[separation:].sum() / free[separation:].sum()
    assert chances == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / free[separation:].sum()))
    # The coin does not remember: as likely right after the separation as long after it.
    just, later = free & ~np.roll(free, 1, axis=0), free & np.roll(free, 1, axis=0)
    for these in (just[separation + 1 :], later[separation + 1 :]):
        share = found[separation + 1 :][these].mean()
        assert share == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / these.sum()))


def test_where_hardly_anybody_is_free_the_first_cohorts_are_no_larger_than_later_ones() -> None:
    # Of 2,000, 290 are free at any time; were everybody kept away for a round less, 480 would be at first.
    sizes = joined(10, 190, 3).sum(axis=1)
    assert sizes == pytest.approx([190, 190, 190], abs=5 * np.sqrt(190))


def test_a_round_is_the_same_in_whatever_order_rounds_are_asked_for() -> None:
    forwards, other = (b_min_separation_sampler(CLIENTS, 50, 7, 6) for _ in range(2))
    cohorts = [forwards.sample(round_) for round_ in range(30)]
    for round_ in (17, 17, 3, 29, 28, 0):
        assert other.sample(round_) == cohorts[round_]
    assert b_min_separation_sampler(CLIENTS, 50, 8, 6).sample(5) != cohorts[5]
    assert forwards.description == COHORTS


def test_with_one_place_left_for_everybody_all_take_turns() -> None:
    sampler = b_min_separation_sampler(CLIENTS, 50, 1, 40)
    cohorts = [sampler.sample(round_) for round_ in range(80)]
    assert sorted(client for cohort in cohorts[:40] for client in cohort) == sorted(CLIENTS)
    assert cohorts[40:] == cohorts[:40]
    # Their phases are drawn, not dealt out: cohorts are not of one size.
    assert len(set(map(len, cohorts))) > 1
    with pytest.raises(PrivacyError, match="who stay away for 41 rounds, cohorts of 50 cannot be had; at most 40 fits"):
        b_min_separation_sampler(CLIENTS, 50, 1, 41)


def test_the_mechanism_is_accounted_for_its_own_column_and_draws_its_own_cohorts() -> None:
    mechanism = make_mechanism(BANDED, COHORTS, 60, 1)
    facts, event = mechanism.description, mechanism.event(60)
    assert isinstance(event, PrivacyEvent)
    assert (event.sampling, event.count, event.sampling_rate) == ("b_min_separation", 60, 0.025)
    coefficients = optimal_coefficients(60, 8)
    assert (np.array(event.column) >= coefficients).all()
    np.testing.assert_allclose(event.column, coefficients, atol=1e-9)
    assert 1.98 <= epsilon(event, 1e-4) == facts["epsilon"] <= 2.0
    assert (facts["sampling"], facts["min_separation"], facts["accountant"]) == ("b_min_separation", 8, "monte_carlo")
    assert "over 60 rounds with b_min_separation cohorts of 50 of 2,000" in facts["words"]
    sampler, expected = sampler_for(mechanism, CLIENTS, 50, 7), b_min_separation_sampler(CLIENTS, 50, 7, 8)
    assert [sampler.sample(t) for t in range(9)] == [expected.sample(t) for t in range(9)]
    # Less noise than groups that take turns need.
    turns = make_mechanism(BANDED, SamplerDescription("poisson", 50, 2000), 60, 1).description
    assert facts["noise_multiplier"] < turns["noise_multiplier"]


def test_fewer_bands_than_rounds_apart_and_a_larger_deployment() -> None:
    assert rounded_column(60, 2, 4)[2:] == (0.0, 0.0)
    options = PrivacyOptions(
        "banded_matrix_factorization", delta=1e-5, min_separation=4, num_buffers=2, population=40_000,
        noise_cohort_size=500,
    )  # fmt: skip
    mechanism = make_mechanism(options, COHORTS, 40, 1)
    event, own = mechanism.event(40), mechanism.run_event(40)
    assert isinstance(event, PrivacyEvent) and isinstance(own, PrivacyEvent)
    assert (event.sampling_rate, own.sampling_rate) == (0.0125, 0.025)
    assert own.noise_multiplier == pytest.approx(event.noise_multiplier / 10)
    assert own.column == event.column
    assert mechanism.description["simulated"]
    assert mechanism.description["run_epsilon"] > mechanism.description["epsilon"]


def test_what_it_is_not_accounted_for_is_refused() -> None:
    for mechanism in ("gaussian_moments_accountant", "laplace", "gaussian"):
        with pytest.raises(PrivacyError, match="b_min_separation is accounted for banded_matrix_factorization only"):
            make_mechanism(PrivacyOptions(mechanism, delta=1e-4), COHORTS, 10, 1)
    with pytest.raises(ConfigError, match="tree_aggregation is accounted for rotating cohorts only"):
        make_mechanism(PrivacyOptions("tree_aggregation", delta=1e-4), COHORTS, 10, 1)
    for separation, message in ((1, "1 keeps nobody away"), (41, "at most 40 fits")):
        options = PrivacyOptions("banded_matrix_factorization", delta=1e-4, min_separation=separation)
        with pytest.raises(PrivacyError, match=message):
            make_mechanism(options, COHORTS, 10, 1)
