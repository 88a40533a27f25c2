"""Named streams and cohort samplers."""

from __future__ import annotations

import numpy as np
import pytest

from fedflair.sampling import SamplerDescription, fixed_sampler, poisson_sampler, rotating_sampler, stream, torch_stream

IDS = [f"u{k}" for k in range(1000)]


def test_a_stream_depends_on_every_part_of_its_name() -> None:
    names = [(0, "a", 0, ""), (1, "a", 0, ""), (0, "b", 0, ""), (0, "a", 1, ""), (0, "a", 0, "x"), (0, "a1", 0, "")]
    draws = {stream(*name).integers(2**62) for name in names}
    assert len(draws) == len(names)
    assert {torch_stream(*name).initial_seed() for name in names}.__len__() == len(names)


def test_a_stream_is_the_same_everywhere() -> None:
    # A pinned number: a change of it would break every run that is to be resumed or reproduced.
    assert stream(0, "cohort").integers(10**6, size=3).tolist() == [700925, 617533, 113807]


def test_a_fixed_cohort_has_exactly_so_many_distinct_clients() -> None:
    sampler = fixed_sampler(IDS, 200, seed=1)
    for round_ in range(20):
        cohort = sampler.sample(round_)
        assert len(cohort) == len(set(cohort)) == 200
    assert sampler.sample(0) != sampler.sample(1)
    assert sampler.sample(5) == fixed_sampler(IDS, 200, seed=1).sample(5)


def test_a_poisson_cohort_has_the_expected_mean_and_variance_and_no_duplicate() -> None:
    sampler = poisson_sampler(IDS, 50, seed=1)
    cohorts = [sampler.sample(round_) for round_ in range(400)]
    assert all(len(set(cohort)) == len(cohort) for cohort in cohorts)
    sizes = np.array([len(cohort) for cohort in cohorts])
    # Binomial(1000, 0.05): mean 50, variance 47.5; four standard errors.
    assert abs(sizes.mean() - 50) < 4 * np.sqrt(47.5 / 400)
    assert abs(sizes.var() - 47.5) < 4 * 47.5 * np.sqrt(2 / 400)


def test_every_client_is_equally_likely() -> None:
    counts = np.zeros(1000)
    sampler = fixed_sampler(IDS, 200, seed=2)
    for round_ in range(200):
        counts[[int(client[1:]) for client in sampler.sample(round_)]] += 1
    # Expected 40 a client, standard deviation 5.7.
    assert counts.min() > 10
    assert counts.max() < 75


@pytest.mark.parametrize(("population", "cohort_size"), [(10, 3), (10, 5), (10, 10), (41, 8)])
def test_everybody_comes_in_turn_and_nobody_back_too_soon(population: int, cohort_size: int) -> None:
    clients = [f"user-{k}" for k in range(population)]
    sampler, last = rotating_sampler(clients, cohort_size, seed=1), dict[str, int]()
    assert sampler.description == SamplerDescription("rotating", cohort_size, population)
    for round_ in range(3 * population):
        cohort = sampler.sample(round_)
        assert len(set(cohort)) == cohort_size
        gaps = {round_ - last[client] for client in cohort if client in last}
        assert gaps <= {population // cohort_size, -(-population // cohort_size)}
        last |= dict.fromkeys(cohort, round_)
    assert len(last) == population
    assert sampler.sample(0) != rotating_sampler(clients, cohort_size, seed=2).sample(0) or cohort_size == population
