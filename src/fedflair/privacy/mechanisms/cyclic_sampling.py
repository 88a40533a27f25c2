"""Cohorts in which no client comes back before ``min_separation`` rounds have passed."""

from __future__ import annotations

import hashlib

import numpy as np

from fedflair.errors import PrivacyError
from fedflair.privacy.contract import Mechanism
from fedflair.privacy.mechanisms.separated_sampling import b_min_separation_sampler
from fedflair.sampling import CohortSampler, SamplerDescription, poisson_sampler, stream


def cyclic_poisson_sampler(client_ids: list[str], cohort_size: int, seed: int, min_separation: int) -> CohortSampler:
    """Round t draws from group t mod ``min_separation``, each client of it independently.

    A client's group follows from the seed and its id alone, so that adding or removing one client moves no other. Its
    rate within its group is min_separation * cohort_size / len(client_ids), so cohorts are as large as without groups.
    Raises PrivacyError where that rate is above 1.
    """
    population = len(client_ids)
    if min_separation * cohort_size > population:
        raise PrivacyError(
            f"min_separation: {min_separation} groups of {population} clients are too small for cohorts of "
            f"{cohort_size}; at most {population // cohort_size} fits"
        )
    rate = min_separation * cohort_size / population
    group_of = np.array([_group(seed, client_id, min_separation) for client_id in client_ids])
    groups = [np.flatnonzero(group_of == group) for group in range(min_separation)]

    def sample(round_: int) -> list[str]:
        group = groups[round_ % min_separation]
        joins = stream(seed, "cohort", round_).random(len(group)) < rate
        return [client_ids[i] for i in group[joins]]

    return CohortSampler(sample, SamplerDescription("poisson", cohort_size, population))


def sampler_for(mechanism: Mechanism, client_ids: list[str], cohort_size: int, seed: int) -> CohortSampler:
    """The sampler by coins whose cohorts ``mechanism`` is accounted for."""
    min_separation = int(mechanism.description.get("min_separation", 1))
    if mechanism.description.get("sampling") == "b_min_separation":
        return b_min_separation_sampler(client_ids, cohort_size, seed, min_separation)
    if min_separation == 1:
        return poisson_sampler(client_ids, cohort_size, seed)
    return cyclic_poisson_sampler(client_ids, cohort_size, seed, min_separation)


def _group(seed: int, client_id: str, num_groups: int) -> int:
    digest = hashlib.sha256(f"{seed}\x1fcyclic group\x1f{client_id}".encode()).digest()
    return int.from_bytes(digest[:16], "little") % num_groups
