"""Who is promised what: the deployment that noise is scaled for, the run itself, and the checks and words of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import (
    SMALLEST_PLD_DELTA,
    Neighbouring,
    Noise,
    PrivacyEvent,
    epsilon,
    resolve_accountant,
)
from fedflair.privacy.accounting.shown import finite, show
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
    def neighbouring(self) -> Neighbouring:
        return "replace_one" if self.sampler.kind == "fixed" else "add_remove"

    def event(self, noise: Noise, noise_multiplier: float, num_rounds: int, min_separation: int = 1) -> PrivacyEvent:
        """What ``num_rounds`` rounds of the deployment release.

        With ``min_separation`` b, clients come in b groups that take turns: each client is in every b-th round's cohort
        with b times the probability.
        """
        rate = min_separation * self.noise_cohort_size / self.population
        count = math.ceil(num_rounds / min_separation)
        return PrivacyEvent(noise, noise_multiplier, count, self.sampler.kind, rate, self.neighbouring)

    def run_event(
        self, noise: Noise, noise_multiplier: float, num_rounds: int, min_separation: int = 1
    ) -> PrivacyEvent:
        """What ``num_rounds`` rounds of this run release: less noise, over the clients that there are."""
        rate = min_separation * self.sampler.sampling_rate
        count = math.ceil(num_rounds / min_separation)
        multiplier = noise_multiplier * self.noise_scale
        return PrivacyEvent(noise, multiplier, count, self.sampler.kind, rate, self.neighbouring)


def make_deployment(options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int) -> Deployment:
    """Fills in what was not given and refuses what cannot be promised (ConfigError, PrivacyError)."""
    require_positive("central_epsilon", options.epsilon)
    require_positive("central_privacy_clipping_bound", options.clipping_bound)
    if not 0 < options.delta < 1:
        raise ConfigError(f"central_delta: {options.delta} is impossible; it must lie in (0, 1)")
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
    check_delta(options.delta, population, allow=options.allow_large_delta)
    return Deployment(options, sampler, num_rounds, population, noise_cohort_size)


def check_delta(delta: float, population: int, *, allow: bool = False) -> None:
    """Refuses (PrivacyError) a delta that would allow publishing one user's data outright."""
    if delta >= 1 / population and not allow:
        raise PrivacyError(
            f"central_delta: {delta:g} is not below 1/population = {1 / population:.3g}, so it allows giving one user "
            "away whole; lower it (allow_large_delta accepts it, for published settings)"
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
        "accountant": resolve_accountant(event, options.accountant, options.delta),
        "neighbouring": deployment.neighbouring,
        "sampling": sampler.kind,
        "sampling_rate": event.sampling_rate,
        "cohort_size": sampler.cohort_size,
        "noise_cohort_size": deployment.noise_cohort_size,
        "population": deployment.population,
        "rounds": deployment.num_rounds,
        "simulated": deployment.simulated,
        "run_epsilon": finite(true),
        "run_noise_multiplier": noise_multiplier * deployment.noise_scale,
        "run_sampling_rate": run_event.sampling_rate,
        "min_separation": min_separation,
        "adaptive_clipping": options.adaptive_clipping,
        "noise_from_seed": options.noise_from_seed,
    }
    return {**facts, "words": " ".join(_sentences(deployment, facts))}


def _sentences(deployment: Deployment, facts: dict[str, Any]) -> list[str]:
    options, sampler = deployment.options, deployment.sampler
    who = "artificial user (a random group of images, not a person)" if options.artificial_users else "user"
    relation = "adding or removing" if facts["neighbouring"] == "add_remove" else "replacing"
    promise = f"epsilon {show(facts['epsilon'])} at delta {options.delta:g} for {relation} one {who}"
    cohorts = f"{sampler.kind} cohorts of {deployment.noise_cohort_size:,} of {deployment.population:,}"
    found = f"{facts['mechanism']}, noise multiplier {facts['noise_multiplier']:.6g}, {facts['accountant']} accountant"
    over = f"over {deployment.num_rounds:,} rounds with {cohorts} ({found})"
    if deployment.simulated:
        lines = [
            f"Simulated deployment: {promise}, {over}.",
            f"This run itself, with cohorts of {sampler.cohort_size:,} of {sampler.population:,} and the noise scaled "
            f"down to them: epsilon {show(facts['run_epsilon'])} at the same delta.",
        ]
    else:
        lines = [f"Privacy: {promise}, {over}."]
    if facts["min_separation"] > 1:
        lines.append(f"No user is in two cohorts within {facts['min_separation']} rounds.")
    if facts["epsilon_per_round"] is not None:
        lines.append(f"The noise is that of one release with epsilon {options.epsilon:g}, used in every round.")
    if facts["accountant"] != options.accountant and options.delta < SMALLEST_PLD_DELTA:
        lines.append(f"Below delta {SMALLEST_PLD_DELTA:g} {options.accountant} is not exact: accounted by rdp.")
    if options.noise_from_seed:
        lines.append("The noise is drawn from the run's seed: this is a simulation and protects nobody.")
    if options.delta >= 1 / deployment.population:
        lines.append(f"Delta is not below 1/{deployment.population:,}: a weak promise, for comparison only.")
    return lines


def require_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{name}: {value} is impossible; it must be a finite number above 0")
