"""Who is promised what: the deployment that noise is scaled for, the run itself, and the checks and words of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import epsilon, resolve_accountant
from fedflair.privacy.accounting.events import Neighbouring, Noise, PrivacyEvent
from fedflair.privacy.accounting.persons import person_epsilon
from fedflair.privacy.accounting.shown import finite, sentences
from fedflair.privacy.contract import PrivacyOptions
from fedflair.sampling import SamplerDescription


@dataclass(frozen=True)
class Deployment:
    """Sampling of the deployment and of the run; see :func:`make_deployment`."""

    options: PrivacyOptions
    sampler: SamplerDescription
    num_rounds: int
    population: int
    noise_cohort_size: int

    @property
    def simulated(self) -> bool:
        """Epsilon of the deployment is not epsilon of the run."""
        return self.noise_cohort_size != self.sampler.cohort_size or self.population != self.sampler.population

    @property
    def noise_scale(self) -> float:
        """What the deployment's noise is multiplied by, for the sum over the run's smaller cohort."""
        return self.sampler.cohort_size / self.noise_cohort_size

    @property
    def min_separation(self) -> int:
        """Rounds of the deployment in any of which a user is in one cohort at most; more than 1 where users rotate."""
        if self.sampler.kind != "rotating":
            return 1
        return self.options.min_separation or self.population // self.noise_cohort_size

    @property
    def run_min_separation(self) -> int:
        """The same of the run itself, whose users may be back sooner."""
        return min(self.min_separation, self.sampler.population // self.sampler.cohort_size)

    @property
    def neighbouring(self) -> Neighbouring:
        return "replace_one" if self.sampler.kind == "fixed" else "zero_out"

    def event(self, noise: Noise, noise_multiplier: float, num_rounds: int, min_separation: int = 1) -> PrivacyEvent:
        """What ``num_rounds`` rounds of the deployment release.

        With ``min_separation`` b, clients come in b groups that take turns: each client is in every b-th round's cohort
        with b times the probability. Where they rotate, everybody knows who is in a cohort.
        """
        if self.sampler.kind == "rotating":
            return self.rotated(noise, noise_multiplier, num_rounds, self.min_separation)
        if self.sampler.kind == "b_min_separation":
            raise PrivacyError(
                "cohort_sampling: b_min_separation is accounted for banded_matrix_factorization only; use poisson"
            )
        rate = min_separation * self.noise_cohort_size / self.population
        count = math.ceil(num_rounds / min_separation)
        return PrivacyEvent(noise, noise_multiplier, count, self.sampler.kind, rate, self.neighbouring)

    def spaced(self, noise_multiplier: float, num_rounds: int, column: tuple[float, ...]) -> PrivacyEvent:
        """What ``num_rounds`` rounds of the deployment release under b-min-separation. column: as of the event."""
        rate = self.noise_cohort_size / self.population
        return PrivacyEvent("gaussian", noise_multiplier, num_rounds, "b_min_separation", rate, column=column)

    def run_spaced(self, noise_multiplier: float, num_rounds: int, column: tuple[float, ...]) -> PrivacyEvent:
        """The same of this run."""
        multiplier, rate = noise_multiplier * self.noise_scale, self.sampler.sampling_rate
        return PrivacyEvent("gaussian", multiplier, num_rounds, "b_min_separation", rate, column=column)

    def run_event(
        self, noise: Noise, noise_multiplier: float, num_rounds: int, min_separation: int = 1
    ) -> PrivacyEvent:
        """What ``num_rounds`` rounds of this run release: less noise, over the clients that there are."""
        multiplier = noise_multiplier * self.noise_scale
        if self.sampler.kind == "rotating":
            return self.rotated(noise, multiplier, num_rounds, self.run_min_separation)
        rate = min_separation * self.sampler.sampling_rate
        count = math.ceil(num_rounds / min_separation)
        return PrivacyEvent(noise, multiplier, count, self.sampler.kind, rate, self.neighbouring)

    def rotated(self, noise: Noise, noise_multiplier: float, num_rounds: int, min_separation: int) -> PrivacyEvent:
        """Every participation of one user, each in independent noise, none hidden by a draw."""
        count = math.ceil(num_rounds / min_separation)
        return PrivacyEvent(noise, noise_multiplier, count, neighbouring=self.neighbouring)


def make_deployment(options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int) -> Deployment:
    """Fills in what was not given and refuses what cannot be promised (ConfigError, PrivacyError)."""
    require_positive("central_epsilon", options.epsilon)
    require_positive("central_privacy_clipping_bound", options.clipping_bound)
    population = sampler.population if options.population is None else options.population
    noise_cohort_size = sampler.cohort_size if options.noise_cohort_size is None else options.noise_cohort_size
    if noise_cohort_size > population:
        raise PrivacyError(
            f"noise_cohort_size: {noise_cohort_size} is more than the population of {population}; lower it, or give "
            "--population"
        )
    if noise_cohort_size < sampler.cohort_size:
        raise PrivacyError(
            f"noise_cohort_size: {noise_cohort_size} is less than cohort_size {sampler.cohort_size}; raise it"
        )
    check_delta("central_delta", options.delta, population, "the population", allow=options.allow_large_delta)
    check_delta(
        "central_delta", options.delta, sampler.population, "the run's own users", allow=options.allow_large_delta
    )
    most = population // noise_cohort_size
    if sampler.kind == "rotating" and options.min_separation is not None and options.min_separation > most:
        raise PrivacyError(
            f"min_separation: {options.min_separation} is more than rotating cohorts of {noise_cohort_size:,} of "
            f"{population:,} keep; at most {most} fits"
        )
    return Deployment(options, sampler, num_rounds, population, noise_cohort_size)


def check_delta(name: str, delta: float, num_users: int, whose: str, *, allow: bool = False) -> None:
    """Refuses (ConfigError, PrivacyError) a delta that would allow publishing one user's data outright.

    name: the option's. whose: who the ``num_users`` users are.
    """
    if not 0 < delta < 1:
        raise ConfigError(f"{name}: {delta} is impossible; it must lie in (0, 1)")
    if delta >= 1 / num_users and not allow:
        raise PrivacyError(
            f"{name}: {delta:g} is not below 1/{num_users:,} ({whose}), so it allows giving one user away whole; lower "
            "it (allow_large_delta accepts it, for published settings)"
        )


def describe(
    deployment: Deployment,
    *,
    name: str,
    noise: Noise,
    noise_multiplier: float,
    order: float,
    event: PrivacyEvent,
    run_event: PrivacyEvent,
    budget: Literal["run", "round"] = "run",
    min_separation: int = 1,
) -> dict[str, Any]:
    """The description of a noisy mechanism; the events are those of the whole run.

    ``epsilon`` is always what all rounds compose to, ``run_epsilon`` what holds of the run itself (None: infinite).
    """
    options, sampler = deployment.options, deployment.sampler
    promised = epsilon(event, options.delta, options.accountant)
    true = epsilon(run_event, options.delta, options.accountant) if deployment.simulated else promised
    used = {resolve_accountant(one, options.accountant, options.delta) for one in (event, run_event)}
    accountant = next(name for name in ("rdp", "monte_carlo", "pld") if name in used)
    std = noise_multiplier * options.clipping_bound * deployment.noise_scale
    facts: dict[str, Any] = {
        "mechanism": name,
        "epsilon": finite(promised),
        "epsilon_per_round": options.epsilon if budget == "round" else None,
        "delta": options.delta,
        "noise_multiplier": noise_multiplier,
        "noise_std": std * math.sqrt(2) if noise == "laplace" else std,
        "clipping_bound": options.clipping_bound,
        "order": order,
        "accountant": accountant,
        "neighbouring": deployment.neighbouring,
        "sampling": sampler.kind,
        "sampling_rate": event.sampling_rate,
        "cohort_size": sampler.cohort_size,
        "noise_cohort_size": deployment.noise_cohort_size,
        "population": deployment.population,
        "users": sampler.population,
        "rounds": deployment.num_rounds,
        "simulated": deployment.simulated,
        "run_epsilon": finite(true),
        "run_noise_multiplier": noise_multiplier * deployment.noise_scale,
        "run_sampling_rate": run_event.sampling_rate,
        "min_separation": max(min_separation, deployment.min_separation),
        "adaptive_clipping": options.adaptive_clipping,
        "noise_from_seed": options.noise_from_seed,
        "artificial_users": options.artificial_users,
        "person": _person(deployment, run_event, min_separation),
    }
    if sampler.kind == "rotating":
        facts["run_min_separation"] = deployment.run_min_separation
    return {**facts, "words": sentences(facts)}


def _person(deployment: Deployment, run_event: PrivacyEvent, min_separation: int) -> dict[str, Any] | None:
    """What the run promises to the people whose images its artificial users share; None where clients are people.

    accounted: whether an accountant bounds it. The epsilons are of this run, not of a deployment; None is infinite.
    """
    images = deployment.options.person_images
    if images is None:
        return None
    # Rounded up, so that what is accounted for the mean follows from what is said of it.
    mean = math.ceil(round(images.mean * 100, 6)) / 100
    facts: dict[str, Any] = {"mean_images": mean, "most_images": images.most, "accounted": False}
    # Groups that take turns would have to be told apart; without a draw, contributions just add up.
    if min_separation > 1 and deployment.sampler.kind != "rotating":
        return facts
    for name, number in (("mean_epsilon", math.ceil(mean)), ("most_epsilon", images.most)):
        groups = min(number, deployment.sampler.population)
        found = person_epsilon(run_event, groups, deployment.options.delta)
        if found is None:
            return facts
        facts[name] = finite(found)
    return {**facts, "accounted": True}


def require_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{name}: {value} is impossible; it must be a finite number above 0")
