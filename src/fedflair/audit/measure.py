"""Is the privacy path what the accountant takes it for? Measured with canary clients.

Canaries are clients that flip a coin to be in the population or not, and send one huge coordinate each, a different
one. The sampler and the mechanism that training would have are made for them, and the rounds are those of training
(``run.py``); then somebody who sees only the noisy sums guesses the coins, and the auditor, who knows all, checks
each part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedflair.audit.run import Seen, canary_number, run_canaries
from fedflair.audit.statistics import estimate, largest_correlation, lower_bound, normal_tail
from fedflair.errors import ConfigError
from fedflair.privacy.accounting.shown import show
from fedflair.privacy.mechanisms import PrivacyOptions
from fedflair.privacy.path import PrivacyPath, make_path
from fedflair.sampling import stream

AuditedMechanism = Literal["gaussian", "gaussian_moments_accountant", "laplace", "banded_matrix_factorization"]

# False alarms of the direct checks, all together, on an honest path.
_LEVEL = 1e-3

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AuditResult:
    """What an audit measured.

    accounted: epsilon as the run states it; None is infinite.
    estimate, lower_bound: epsilon as measured; see ``statistics.py``.
    findings: what is wrong, each one line; empty where nothing is.
    """

    accounted: float | None
    delta: float
    estimate: float
    lower_bound: float
    num_canaries: int
    num_rounds: int
    findings: tuple[str, ...]


def audit_options(
    options: PrivacyOptions,
    num_rounds: int,
    sampling_rate: float,
    num_canaries: int,
    seed: int,
    tamper: Callable[[PrivacyPath], PrivacyPath] = lambda path: path,
) -> AuditResult:
    """Audits the path that ``options`` lead to. ``tamper`` puts faults into it, to see whether they are found.

    Raises ConfigError, naming the option, where there is too little to see anything, and as ``make_path`` does.
    """
    if num_canaries < 100:
        raise ConfigError(f"num_canaries: {num_canaries} is too few to see anything; use at least 100")
    if num_rounds < 1 or not 0 < sampling_rate <= 1:
        raise ConfigError(f"rounds, sampling_rate: {num_rounds}, {sampling_rate} are impossible; use >= 1 and (0, 1]")
    included = stream(seed, "canary coins").random(num_canaries) < 0.5
    client_ids = population(included)
    # Rounded down, so that groups of clients are large enough for their cohorts wherever the rate allows it.
    cohort_size = max(1, int(sampling_rate * len(client_ids)))
    path = make_path(
        options,
        client_ids,
        sampling="poisson",
        cohort_size=cohort_size,
        num_rounds=num_rounds,
        seed=seed,
        noise_seed=seed,
    )
    return audit_path(tamper(path), num_rounds, included)


def population(included: npt.NDArray[np.bool_]) -> list[str]:
    """The clients that cohorts are drawn from: the included canaries, and as many others as there are canaries left."""
    others = len(included) - int(included.sum())
    return [f"canary-{i}" for i in np.flatnonzero(included)] + [f"client-{i}" for i in range(others)]


def audit_path(path: PrivacyPath, num_rounds: int, included: npt.NDArray[np.bool_]) -> AuditResult:
    """Runs ``path`` for ``num_rounds`` rounds. included: bool [num_canaries], which canaries are in its population."""
    facts = path.mechanism.description
    num_canaries = len(included)
    seen = run_canaries(path, population(included), num_rounds, num_canaries)
    scores = seen.released[:, :num_canaries].sum(axis=0)
    delta = float(facts["delta"])
    bound = lower_bound(scores, included, delta)
    accounted = facts["run_epsilon"]
    findings = [*_direct_findings(path, seen, num_canaries)]
    if accounted is not None and bound > accounted:
        findings.append(f"epsilon is at least {bound:.4g} with 95 % confidence, accounted as {show(accounted)}")
    return AuditResult(
        accounted=accounted,
        delta=delta,
        estimate=estimate(scores, included, delta),
        lower_bound=bound,
        num_canaries=num_canaries,
        num_rounds=num_rounds,
        findings=tuple(findings),
    )


def _direct_findings(path: PrivacyPath, seen: Seen, num_canaries: int) -> list[str]:
    """What an auditor who knows cohorts and updates sees wrong with each part."""
    facts = path.mechanism.description
    return [
        *_repeated_clients(seen.cohorts, int(facts["min_separation"])),
        *_too_many(seen.cohorts, float(facts["run_sampling_rate"]) / int(facts["min_separation"]), path),
        *_too_much(seen),
        *_too_little_noise(seen.noise[:, num_canaries:], kurtosis=6.0 if facts["mechanism"] == "laplace" else 3.0),
        *_repeated_noise(seen.noise[:, num_canaries:]),
    ]


def _repeated_clients(cohorts: list[list[str]], min_separation: int) -> list[str]:
    last: dict[str, int] = {}
    for round_, cohort in enumerate(cohorts):
        if len(set(cohort)) < len(cohort):
            return [f"the cohort of round {round_} holds a client twice"]
        for client_id in cohort:
            if round_ - last.get(client_id, -min_separation) < min_separation:
                return [f"{client_id} is in the cohorts of rounds {last[client_id]} and {round_}"]
            last[client_id] = round_
    return []


def _too_many(cohorts: list[list[str]], sampling_rate: float, path: PrivacyPath) -> list[str]:
    expected = len(cohorts) * path.sampler.description.population * sampling_rate
    found = sum(len(cohort) for cohort in cohorts)
    # Cohorts are sums of independent coins: never more spread than Poisson numbers of the same mean.
    if found > expected + normal_tail(_LEVEL, 4) * np.sqrt(expected) + 3:
        return [f"cohorts hold {found} clients in all, accounted as {expected:.1f}"]
    return []


def _too_much(seen: Seen) -> list[str]:
    """Canaries' own coordinates in the rounds they were in: on average the bound, at most.

    What a canary adds to a round is spread by the filter over that round and the next ones, so that each of its rounds
    is read with the filter's own weights, which is the best that can be done against independent noise.
    """
    joins = [(round_, canary_number(c)) for round_, cohort in enumerate(seen.cohorts) for c in set(cohort)]
    excess, squares = 0.0, 0.0
    for round_, canary in joins:
        if canary is not None:
            values = seen.noise[round_ : round_ + len(seen.coefficients), canary]
            weights = seen.coefficients[: len(values)]
            excess += float(values @ weights)
            squares += float(weights @ weights)
    spread = np.sqrt(max(squares, 1.0))
    if excess > normal_tail(_LEVEL, 4) * spread:
        return [f"canaries contribute more than the clipping bound ({excess / spread:.1f} standard deviations more)"]
    return []


def _too_little_noise(noise: Vector, kurtosis: float) -> list[str]:
    """The variance of ``noise``, stated as 1, where nobody contributes anything."""
    variance = float((noise**2).mean())
    if variance < 1 - normal_tail(_LEVEL, 4) * np.sqrt((kurtosis - 1) / noise.size):
        return [f"the noise's standard deviation is {np.sqrt(variance):.4f} of what is stated"]
    return []


def _repeated_noise(noise: Vector) -> list[str]:
    """Rounds whose noises are correlated."""
    num_rounds, size = noise.shape
    if num_rounds < 2:
        return []
    found, first, second = largest_correlation(list(noise))
    if found > normal_tail(_LEVEL / 2, 4 * num_rounds * (num_rounds - 1) // 2) / np.sqrt(size):
        return [f"the noises of rounds {first} and {second} have correlation {found:.3f}"]
    return []
