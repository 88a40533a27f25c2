"""Randomness by name, and the samplers that draw cohorts from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

SamplingKind = Literal["poisson", "fixed", "rotating", "b_min_separation"]
# ``auto`` leaves it to the mechanism.
AskedSampling = Literal[SamplingKind, "auto"]


def _seed(seed: int, purpose: str, round_: int, client: str) -> int:
    """128 bits that depend on all four parts; the separator cannot occur inside a number."""
    text = f"{seed}\x1f{round_}\x1f{purpose}\x1f{client}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:16], "little")


def stream(seed: int, purpose: str, round_: int = 0, client: str = "") -> np.random.Generator:
    """The generator for one purpose in one round for one client.

    Equal arguments give equal numbers on every machine, in every process and in any order of calls; there is no
    other source of randomness in a run, so a resumed run draws what the uninterrupted run would have drawn.
    """
    return np.random.Generator(np.random.Philox(_seed(seed, purpose, round_, client)))


def torch_stream(seed: int, purpose: str, round_: int = 0, client: str = "") -> torch.Generator:
    """As :func:`stream`, as a CPU ``torch.Generator``.

    It keeps 32 bits of its seed: enough for initial weights and dropout, not for the noise of privacy.
    """
    # Here, as a second passes while it loads, and most of what draws from a stream does without it.
    import torch

    generator = torch.Generator()
    generator.manual_seed(_seed(seed, purpose, round_, client) >> 65)
    return generator


@dataclass(frozen=True)
class SamplerDescription:
    """What the accountant must know about how cohorts are drawn.

    kind: ``poisson`` (each client independently with probability ``sampling_rate``), ``fixed`` (exactly
    ``cohort_size`` of ``population`` clients without replacement), ``rotating`` (so many of them in turn) or
    ``b_min_separation`` (by coins, but for clients that were in one of the cohorts just before).
    cohort_size: expected (by coins) or exact number of clients in a cohort.
    population: number of clients that a cohort is drawn from.
    """

    kind: SamplingKind
    cohort_size: int
    population: int

    @property
    def sampling_rate(self) -> float:
        """Probability that one given client is in one given cohort, in (0, 1]."""
        return self.cohort_size / self.population


@dataclass(frozen=True)
class CohortSampler:
    """``sample(round)`` gives the round's client ids; ``description`` says how, for the accountant."""

    sample: Callable[[int], list[str]]
    description: SamplerDescription


def poisson_sampler(client_ids: list[str], cohort_size: int, seed: int) -> CohortSampler:
    """Each client joins each round independently with probability ``cohort_size / len(client_ids)``."""
    description = SamplerDescription("poisson", cohort_size, len(client_ids))

    def sample(round_: int) -> list[str]:
        joins = stream(seed, "cohort", round_).random(len(client_ids)) < description.sampling_rate
        return [client_ids[i] for i in np.flatnonzero(joins)]

    return CohortSampler(sample, description)


def fixed_sampler(client_ids: list[str], cohort_size: int, seed: int) -> CohortSampler:
    """Exactly ``cohort_size`` distinct clients a round, every subset of that size equally likely."""
    description = SamplerDescription("fixed", cohort_size, len(client_ids))

    def sample(round_: int) -> list[str]:
        chosen = stream(seed, "cohort", round_).choice(len(client_ids), size=cohort_size, replace=False)
        return [client_ids[i] for i in np.sort(chosen)]

    return CohortSampler(sample, description)


def rotating_sampler(client_ids: list[str], cohort_size: int, seed: int) -> CohortSampler:
    """All clients in turn, ``cohort_size`` distinct ones a round, in one random order that comes again and again.

    No client is in two cohorts within ``len(client_ids) // cohort_size`` rounds.
    """
    population = len(client_ids)
    order = stream(seed, "rotation").permutation(population)

    def sample(round_: int) -> list[str]:
        places = np.arange(round_ * cohort_size, (round_ + 1) * cohort_size) % population
        return [client_ids[i] for i in np.sort(order[places])]

    return CohortSampler(sample, SamplerDescription("rotating", cohort_size, population))


SAMPLERS: dict[str, Callable[[list[str], int, int], CohortSampler]] = {
    "poisson": poisson_sampler,
    "fixed": fixed_sampler,
    "rotating": rotating_sampler,
}
