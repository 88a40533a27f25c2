"""``fedflair audit``: is the privacy path what the accountant takes it for? Measured with canary clients.

Canaries are clients that flip a coin to be in the population or not, and send one huge coordinate each, a different
one. The real sampler draws cohorts, the real mechanism clips and adds noise; then somebody who sees only the noisy sums
guesses the coins, and the auditor, who knows all, checks each part.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import lfilter

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy import CohortStats, Mechanism, PrivacyOptions, make_mechanism
from fedflair.privacy.audit_statistics import estimate, largest_correlation, lower_bound, normal_tail
from fedflair.privacy.cyclic_sampling import sampler_for
from fedflair.privacy.deployment import show
from fedflair.sampling import CohortSampler, SamplerDescription, stream

AuditedMechanism = Literal["gaussian", "gaussian_moments_accountant", "laplace", "banded_matrix_factorization"]

# False alarms of the direct checks, all together, on an honest path.
_LEVEL = 1e-3
_NUM_SILENT = 4096

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Path:
    """What is audited: the parts a run is made of, or stand-ins for them."""

    mechanism: Mechanism
    sampler: CohortSampler


@dataclass(frozen=True)
class AuditResult:
    """What an audit measured.

    accounted: epsilon as the run states it; None is infinite.
    estimate, lower_bound: epsilon as measured; see ``audit_statistics``.
    findings: what is wrong, each one line; empty where nothing is.
    """

    accounted: float | None
    delta: float
    estimate: float
    lower_bound: float
    num_canaries: int
    num_rounds: int
    findings: tuple[str, ...]


def audit(
    *,
    central_privacy_mechanism: AuditedMechanism = "gaussian_moments_accountant",
    central_epsilon: float = 2.0,
    central_delta: float = 1e-5,
    central_privacy_clipping_bound: float = 0.1,
    rounds: int = 20,
    sampling_rate: float = 0.5,
    num_canaries: int = 2000,
    min_separation: int | None = None,
    adaptive_clipping: bool = False,
    seed: int | None = None,
    json_: bool = False,
) -> None:
    """Runs sampler, clipping and noise with canary clients and compares what they give away with the accounted epsilon.

    Args:
        central_privacy_mechanism: The mechanism to audit.
        central_epsilon: Budget, as for fedflair train.
        central_delta: Failure probability, as for fedflair train.
        central_privacy_clipping_bound: Bound on the norm of an update.
        rounds: Number of rounds to run.
        sampling_rate: Probability that a client is in a round's cohort.
        num_canaries: Clients that are in or out by a coin; more of them see more.
        min_separation: Rounds between two cohorts of one client (banded_matrix_factorization).
        adaptive_clipping: Let the clipping bound follow the norms.
        seed: Makes the audit repeatable; from the operating system if not given.
        json_: Print JSON.
    """
    if num_canaries < 100:
        raise ConfigError(f"num_canaries: {num_canaries} is too few to see anything; use at least 100")
    if rounds < 1 or not 0 < sampling_rate <= 1:
        raise ConfigError(f"rounds, sampling_rate: {rounds}, {sampling_rate} are impossible; use >= 1 and (0, 1]")
    options = PrivacyOptions(
        mechanism=central_privacy_mechanism,
        epsilon=central_epsilon,
        delta=central_delta,
        clipping_bound=central_privacy_clipping_bound,
        min_separation=min_separation,
        adaptive_clipping=adaptive_clipping,
    )
    found = audit_options(options, rounds, sampling_rate, num_canaries, secrets.randbits(128) if seed is None else seed)
    print(json.dumps(asdict(found), indent=2) if json_ else _text(found))
    if found.findings:
        raise PrivacyError(f"audit: flagged: {found.findings[0]}; do not trust this path's epsilon")


def audit_options(
    options: PrivacyOptions,
    num_rounds: int,
    sampling_rate: float,
    num_canaries: int,
    seed: int,
    tamper: Callable[[Path], Path] = lambda path: path,
) -> AuditResult:
    """Audits the path that ``options`` lead to. ``tamper`` puts faults into it, to see whether they are found."""
    included = stream(seed, "canary coins").random(num_canaries) < 0.5
    path = audited_path(options, num_rounds, sampling_rate, included, seed)
    return audit_path(tamper(path), num_rounds, included)


def audited_path(
    options: PrivacyOptions, num_rounds: int, sampling_rate: float, included: npt.NDArray[np.bool_], seed: int
) -> Path:
    """Mechanism and sampler as a run with ``options`` has them, over the included canaries and other clients."""
    others = len(included) - int(included.sum())
    client_ids = [f"canary-{i}" for i in np.flatnonzero(included)] + [f"client-{i}" for i in range(others)]
    # Rounded down, so that groups of clients are large enough for their cohorts wherever the rate allows it.
    cohort_size = max(1, int(sampling_rate * len(client_ids)))
    description = SamplerDescription("poisson", cohort_size, len(client_ids))
    mechanism = make_mechanism(options, description, num_rounds, noise_seed=seed)
    return Path(mechanism, sampler_for(mechanism, client_ids, cohort_size, seed))


def audit_path(path: Path, num_rounds: int, included: npt.NDArray[np.bool_]) -> AuditResult:
    """Runs ``path`` for ``num_rounds`` rounds. included: bool [num_canaries], which canaries are in its population."""
    facts = path.mechanism.description
    num_canaries = len(included)
    seen = _run(path, num_rounds, num_canaries)
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


@dataclass(frozen=True)
class _Seen:
    """What a run looked like from outside and from inside.

    cohorts: client ids a round.
    released: what an observer has, [rounds, P], in units of the stated noise.
    noise: the same less what the clients should have contributed.
    """

    cohorts: list[list[str]]
    released: Vector
    noise: Vector


def _run(path: Path, num_rounds: int, num_canaries: int) -> _Seen:
    mechanism = path.mechanism
    size = num_canaries + _NUM_SILENT
    state = mechanism.init(size)
    cohorts, released, noise = [], [], []
    for round_ in range(num_rounds):
        cohort = path.sampler.sample(round_)
        bound = mechanism.clipping_bound(state)
        total, promised = torch.zeros(size), torch.zeros(size)
        num_clipped = 0
        for client_id in cohort:
            update = torch.zeros(size)
            canary = canary_number(client_id)
            if canary is not None:
                update[canary] = 1000 * bound
                promised[canary] = bound
            num_clipped += mechanism.clip(update, bound).clipped
            total += update
        std = mechanism.noise_std(state)
        noisy, state = mechanism.add_noise(total, CohortStats(len(cohort), num_clipped, 0), round_, state)
        cohorts.append(cohort)
        released.append(noisy.double().numpy() / std)
        noise.append((noisy.double() - promised.double()).numpy() / std)
    # Noise that is correlated over rounds is made independent again, which an observer can do as well.
    if "coefficients" in state:
        coefficients = state["coefficients"].numpy()
        released = list(lfilter(coefficients, [1.0], np.stack(released), axis=0))
        noise = list(lfilter(coefficients, [1.0], np.stack(noise), axis=0))
    return _Seen(cohorts, np.stack(released), np.stack(noise))


def canary_number(client_id: str) -> int | None:
    """The coordinate of a canary; None for the other clients, whose updates are zero."""
    kind, _, number = client_id.partition("-")
    return int(number) if kind == "canary" else None


def _direct_findings(path: Path, seen: _Seen, num_canaries: int) -> list[str]:
    """What an auditor who knows cohorts and updates sees wrong with each part."""
    facts = path.mechanism.description
    return [
        *_repeated_clients(seen.cohorts, int(facts["min_separation"])),
        *_too_many(seen.cohorts, float(facts["run_sampling_rate"]) / int(facts["min_separation"]), path),
        *_too_much(seen, num_canaries, banded=int(facts["min_separation"]) > 1),
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


def _too_many(cohorts: list[list[str]], sampling_rate: float, path: Path) -> list[str]:
    expected = len(cohorts) * path.sampler.description.population * sampling_rate
    found = sum(len(cohort) for cohort in cohorts)
    # Cohorts are sums of independent coins: never more spread than Poisson numbers of the same mean.
    if found > expected + normal_tail(_LEVEL, 4) * np.sqrt(expected) + 3:
        return [f"cohorts hold {found} clients in all, accounted as {expected:.1f}"]
    return []


def _too_much(seen: _Seen, num_canaries: int, *, banded: bool) -> list[str]:
    """Canaries' own coordinates in the rounds they were in: on average the bound, at most."""
    if banded:
        # Whitening mixes rounds; what is left of a clipped canary there is noise around zero.
        excess, spread = float(seen.noise[:, :num_canaries].sum()), np.sqrt(seen.noise[:, :num_canaries].size)
    else:
        joins = [(round_, canary_number(c)) for round_, cohort in enumerate(seen.cohorts) for c in set(cohort)]
        rows = [round_ for round_, canary in joins if canary is not None]
        columns = [canary for _, canary in joins if canary is not None]
        excess, spread = float(seen.noise[rows, columns].sum()), np.sqrt(max(len(rows), 1))
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


def _text(found: AuditResult) -> str:
    facts: dict[str, Any] = {
        "accounted epsilon": f"{show(found.accounted)} at delta {found.delta:g}",
        "estimated epsilon": f"{found.estimate:.4g} (two normal distributions; no bound)",
        "lower bound": f"{found.lower_bound:.4g} (95 % confidence, one run, {found.num_canaries} canaries)",
        "rounds": found.num_rounds,
        "verdict": "nothing is wrong" if not found.findings else "; ".join(found.findings),
    }
    return "\n".join(f"{name:<19}{value}" for name, value in facts.items())
