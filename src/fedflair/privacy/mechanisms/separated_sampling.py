"""Cohorts by coins, in none of which a client is that was in one of the ``min_separation`` - 1 before."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.b_min_separation import rate_when_free
from fedflair.sampling import CohortSampler, SamplerDescription, stream

Integers = npt.NDArray[np.int64]

_NOBODY: Integers = np.zeros(0, dtype=np.int64)


def b_min_separation_sampler(client_ids: list[str], cohort_size: int, seed: int, min_separation: int) -> CohortSampler:
    """Each client that is free joins by a coin of its own, and stays away from the ``min_separation`` - 1 rounds after.

    Before the first round everybody is as at any later time: drawn k rounds ago, k < min_separation, with probability
    cohort_size / len(client_ids), so that every cohort is expected to be as large. A round is drawn from those before
    it: going on costs one of them, going back all. Raises PrivacyError where so many would never be free.
    """
    population = len(client_ids)
    if min_separation * cohort_size > population:
        raise PrivacyError(
            f"min_separation: of {population} clients, who stay away for {min_separation} rounds, cohorts of "
            f"{cohort_size} cannot be had; at most {population // cohort_size} fits"
        )
    rate = cohort_size / population
    joining = rate_when_free(rate, min_separation)
    # The last cohort that was drawn, its round, and the first round after it in which each client is free.
    last, round_of_last, free_at = _NOBODY, -1, _free_at_first(population, rate, min_separation, seed)

    def sample(round_: int) -> list[str]:
        nonlocal last, round_of_last, free_at
        if round_ < round_of_last:
            round_of_last, free_at = -1, _free_at_first(population, rate, min_separation, seed)
        while round_of_last < round_:
            round_of_last += 1
            coins = stream(seed, "cohort", round_of_last).random(population)
            last = np.flatnonzero((free_at <= round_of_last) & (coins < joining))
            free_at[last] = round_of_last + min_separation
        return [client_ids[i] for i in last]

    return CohortSampler(sample, SamplerDescription("b_min_separation", cohort_size, population))


def _free_at_first(population: int, rate: float, min_separation: int, seed: int) -> Integers:
    """The first round in which each client is free, int64 [clients]."""
    coins = stream(seed, "cohorts before the first round").random(population)
    ago = 1 + np.floor(coins / rate).astype(np.int64)
    return np.asarray(np.where(ago < min_separation, min_separation - ago, 0), dtype=np.int64)
