"""The privacy accountant's answers as values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fedflair.api.checked import checked
from fedflair.privacy.accounting.events import AskedAccountant
from fedflair.privacy.accounting.question import (
    AskedNeighbouring,
    CohortSampling,
    NamedMechanism,
    answer_to,
    make_question,
)
from fedflair.privacy.accounting.shown import show


@dataclass(frozen=True, repr=False)
class Epsilon:
    """What a noise multiplier costs, or what an epsilon takes.

    epsilon: of all rounds, at ``delta``; inf where nothing is promised. epsilon_per_round: of one release, for gaussian
        and laplace.
    noise_multiplier: noise on the sum over the clipping bound.
    accountant: the one that had a bound, pld or rdp. neighbouring: what one client's privacy means here.
    neighbours: epsilon and noise multiplier for each meaning of it; None where no accountant has a bound.
    warnings: what makes the promise a weak one.
    """

    epsilon: float
    delta: float
    rounds: int
    noise_multiplier: float
    epsilon_per_round: float | None
    accountant: str
    mechanism: str
    neighbouring: str
    neighbours: Mapping[str, Mapping[str, float | None] | None]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        weak = f"; {'; '.join(self.warnings)}" if self.warnings else ""
        return (
            f"<epsilon {show(self.epsilon)} at delta {self.delta:g} over {self.rounds:,} rounds of {self.mechanism}, "
            f"noise multiplier {self.noise_multiplier:.6g} ({self.accountant}, {self.neighbouring}){weak}>"
        )


def epsilon(
    *,
    rounds: int,
    delta: float,
    sampling_rate: float | None = None,
    cohort_size: int | None = None,
    population: int | None = None,
    noise_multiplier: float | None = None,
    epsilon: float | None = None,
    mechanism: NamedMechanism = "gaussian_moments_accountant",
    accountant: AskedAccountant = "auto",
    cohort_sampling: CohortSampling = "poisson",
    min_separation: int | None = None,
    neighbouring: AskedNeighbouring | None = None,
) -> Epsilon:
    """What ``fedflair epsilon`` answers: epsilon from a noise multiplier, or the noise multiplier from an epsilon.

    Arguments as the options of that command. Raises ConfigError and PrivacyError, naming the argument, for impossible
    questions.
    """
    given = dict(locals())
    asked = checked(_TYPES, given)
    question = make_question(**asked)
    answer = answer_to(question, asked["population"])
    return Epsilon(
        epsilon=math.inf if answer.epsilon is None else answer.epsilon,
        delta=question.delta,
        rounds=question.rounds,
        noise_multiplier=answer.noise_multiplier,
        epsilon_per_round=answer.epsilon_per_round,
        accountant=answer.accountant,
        mechanism=question.mechanism,
        neighbouring=question.neighbouring,
        neighbours={str(name): found for name, found in answer.neighbours.items()},
        warnings=tuple(answer.warnings),
    )


# Within the function its own name is the argument's.
_TYPES = epsilon
