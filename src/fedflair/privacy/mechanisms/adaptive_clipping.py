"""Gaussian noise with a clipping bound that follows a quantile of the updates' norms.

Source: Andrew et al. 2021, Differentially Private Learning with Adaptive Clipping, arXiv:1905.03871.

Each client contributes its clipped update, of norm <= C, and b - 1/2, where b is 1 if the update was left whole. Both
sums get noise and are one Gaussian release: with noise multiplier z_sum on the update and standard deviation s on the
count, 1 / z^2 = 1 / z_sum^2 + 1 / (2 s)^2, z being the multiplier that the budget allows. Then the bound moves by the
noisy share of whole updates: C <- C exp(-rate (share - quantile)).
"""

from __future__ import annotations

import math

import torch

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.contract import BINDING, CohortStats, Mechanism, MechanismState, encoded
from fedflair.privacy.mechanisms import noise as noises
from fedflair.privacy.mechanisms.clipping import clip_update, exact_grid
from fedflair.privacy.mechanisms.deployment import Deployment, describe


def adaptive_gaussian(name: str, deployment: Deployment, noise_multiplier: float, noise_seed: int) -> Mechanism:
    """The mechanism whose release in a round, sum and count together, has noise multiplier ``noise_multiplier``.

    The state is the bound in force, float64 []. Raises PrivacyError where the count leaves no budget for the sum.
    """
    options, num_rounds, sampler = deployment.options, deployment.num_rounds, deployment.sampler
    count_std, sum_multiplier = split_noise(deployment, noise_multiplier)
    scale = deployment.noise_scale
    quantile, rate = options.adaptive_clipping_quantile, options.adaptive_clipping_learning_rate
    description = describe(
        deployment,
        name=name,
        noise="gaussian",
        noise_multiplier=noise_multiplier,
        order=2.0,
        event=deployment.event("gaussian", noise_multiplier, num_rounds),
        run_event=deployment.run_event("gaussian", noise_multiplier, num_rounds),
    )

    def bound_of(state: MechanismState) -> float:
        return float(state["clipping_bound"])

    def noise_std(state: MechanismState, round_: int) -> float:
        return sum_multiplier * scale * bound_of(state)

    def add_noise(
        total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState
    ) -> tuple[torch.Tensor, MechanismState]:
        num_whole = cohort.num_clients - cohort.num_clipped - cohort.num_rejected
        count = num_whole - cohort.num_clients / 2
        bound_to = noises.binding(noise_seed, round_, total, count, bound_of(state))
        key = noises.noise_key(noise_seed, round_, bound_to)
        noises.add_noise(total, "gaussian", noise_std(state, round_), key)
        std = count_std * scale
        noisy = noises.scalar_on_grid(count + std * noises.scalar_normal(key), std)
        share = noisy / sampler.cohort_size + 0.5
        # The bound is a public number from here on: a function of the noisy count alone.
        bound = bound_of(state) * math.exp(-rate * (share - quantile))
        return total, {"clipping_bound": torch.tensor(bound, dtype=torch.float64), BINDING: encoded(bound_to)}

    return Mechanism(
        name=name,
        init=lambda num_parameters: {
            "clipping_bound": torch.tensor(options.clipping_bound, dtype=torch.float64),
            BINDING: encoded("0" * 32),
        },
        clipping_bound=bound_of,
        clip=lambda update, bound: clip_update(update, bound, 2.0, exact_grid(bound, sampler.cohort_size)),
        add_noise=add_noise,
        event=lambda rounds: deployment.event("gaussian", noise_multiplier, rounds),
        noise_std=noise_std,
        description={
            **description,
            "noise_std": sum_multiplier * scale * options.clipping_bound,
            "count_noise_std": count_std,
            "run_count_noise_std": count_std * scale,
        },
        run_event=lambda rounds: deployment.run_event("gaussian", noise_multiplier, rounds),
    )


def check_adaptive_clipping(deployment: Deployment) -> None:
    """Refuses impossible options (ConfigError) and cohorts that the split does not hold for (PrivacyError)."""
    options = deployment.options
    if not 0 <= options.adaptive_clipping_quantile <= 1:
        raise ConfigError(f"adaptive_clipping_quantile: {options.adaptive_clipping_quantile} is impossible; use [0, 1]")
    if not options.adaptive_clipping_learning_rate > 0:
        raise ConfigError(
            f"adaptive_clipping_learning_rate: {options.adaptive_clipping_learning_rate} is impossible; use > 0"
        )
    if deployment.neighbouring != "zero_out":
        raise PrivacyError("adaptive_clipping: its noise is split for poisson and rotating cohorts; use one of them")


def split_noise(deployment: Deployment, noise_multiplier: float, num_counts: int = 1) -> tuple[float, float]:
    """(std of the noise on each count, noise multiplier of the sum), for cohorts of the deployment's size.

    num_counts: counts that a client takes part in. What they cost together does not depend on it, but for a noise that
    is given.
    """
    options = deployment.options
    count_std = options.adaptive_clipping_noise_std
    if count_std is None:
        count_std = math.sqrt(num_counts) * deployment.noise_cohort_size / 20
    least = math.sqrt(num_counts) * noise_multiplier / 2
    if count_std <= least:
        raise PrivacyError(
            f"adaptive_clipping_noise_std: {count_std:.6g} on the count leaves no privacy for the sum; it must be "
            f"above {least:.6g} (a larger cohort, or a larger epsilon, makes room)"
        )
    return count_std, (noise_multiplier**-2 - num_counts * (2 * count_std) ** -2) ** -0.5
