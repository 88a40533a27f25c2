from __future__ import annotations

import numpy as np
import pytest

from fedflair.errors import PrivacyError
from fedflair.privacy.mechanisms import PrivacyOptions, make_mechanism
from fedflair.privacy.mechanisms.cyclic_sampling import cyclic_poisson_sampler, sampler_for
from fedflair.sampling import SamplerDescription, poisson_sampler

CLIENTS = [f"user-{k}" for k in range(2000)]


def test_no_client_comes_back_too_soon() -> None:
    sampler = cyclic_poisson_sampler(CLIENTS, 50, seed=3, min_separation=12)
    last: dict[str, int] = {}
    for round_ in range(600):
        for client in sampler.sample(round_):
            assert round_ - last.get(client, -12) >= 12
            last[client] = round_
    assert len(last) == 2000


def test_plain_cohorts_do_come_back_too_soon() -> None:
    sampler = poisson_sampler(CLIENTS, 50, seed=3)
    assert set(sampler.sample(0)) & set().union(*(sampler.sample(t) for t in range(1, 12)))


def test_rates_are_those_of_the_accounting() -> None:
    separation, cohort = 10, 40
    sampler = cyclic_poisson_sampler(CLIENTS, cohort, seed=4, min_separation=separation)
    joined = dict.fromkeys(CLIENTS, 0)
    for round_ in range(1000):
        for client in sampler.sample(round_):
            joined[client] += 1
    # 100 rounds of each client's group, joined with probability 10 * 40 / 2000 = 0.2 each.
    counts = np.array(list(joined.values()))
    assert counts.mean() == pytest.approx(20, abs=5 * np.sqrt(100 * 0.2 * 0.8 / 2000))
    assert counts.var() == pytest.approx(16, rel=0.15)


def test_a_client_more_or_less_moves_no_other() -> None:
    everybody = cyclic_poisson_sampler(CLIENTS, 50, seed=5, min_separation=8)
    fewer = cyclic_poisson_sampler(CLIENTS[1:], 50, seed=5, min_separation=8)

    def groups(sampler: object) -> dict[str, int]:
        return {client: t % 8 for t in range(2000) for client in sampler.sample(t)}  # type: ignore[attr-defined]

    both, one_fewer = groups(everybody), groups(fewer)
    assert all(both[client] == group for client, group in one_fewer.items())
    assert len(one_fewer) == 1999
    assert everybody.sample(17) == cyclic_poisson_sampler(CLIENTS, 50, seed=5, min_separation=8).sample(17)


def test_groups_too_small_are_refused() -> None:
    with pytest.raises(
        PrivacyError, match="41 groups of 2000 clients are too small for cohorts of 50; at most 40 fits"
    ):
        cyclic_poisson_sampler(CLIENTS, 50, seed=1, min_separation=41)
    everybody = cyclic_poisson_sampler(CLIENTS, 50, seed=1, min_separation=40)
    assert sorted(client for t in range(40) for client in everybody.sample(t)) == sorted(CLIENTS)


def test_the_mechanism_chooses_the_sampler() -> None:
    description = SamplerDescription("poisson", 50, 2000)
    banded = PrivacyOptions("banded_matrix_factorization", min_separation=8)
    gaussian = PrivacyOptions("gaussian_moments_accountant")
    for options, expected in (
        (banded, cyclic_poisson_sampler(CLIENTS, 50, 7, 8)),
        (gaussian, poisson_sampler(CLIENTS, 50, 7)),
    ):
        sampler = sampler_for(make_mechanism(options, description, 20, 1), CLIENTS, 50, 7)
        assert [sampler.sample(t) for t in range(9)] == [expected.sample(t) for t in range(9)]
        assert sampler.description == description


def test_cohorts_hold_nobody_twice() -> None:
    # Drawing 200 of 41,131 with replacement, as other tools do while accounting Poisson, repeats somebody in 38 %.
    with_replacement = 1 - np.prod(1 - np.arange(200) / 41131)
    assert with_replacement == pytest.approx(0.38, abs=0.005)
    clients = [str(k) for k in range(41131)]
    for sampler in (poisson_sampler(clients, 200, 1), cyclic_poisson_sampler(clients, 200, 1, 5)):
        for round_ in range(50):
            cohort = sampler.sample(round_)
            assert len(set(cohort)) == len(cohort)
