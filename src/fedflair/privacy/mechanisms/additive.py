"""A mechanism that clips to a fixed bound and adds fresh independent noise to each round's sum."""

from __future__ import annotations

from typing import Literal

import torch

from fedflair.errors import ConfigError
from fedflair.privacy.accounting.events import Noise
from fedflair.privacy.contract import (
    BINDING,
    CohortStats,
    LocalPrivacyOptions,
    Mechanism,
    MechanismState,
    PrivacyOptions,
    encoded,
)
from fedflair.privacy.mechanisms import noise as noises
from fedflair.privacy.mechanisms.clipping import clip_update, exact_grid
from fedflair.privacy.mechanisms.deployment import Deployment, describe

ORDERS: dict[Noise, float] = {"gaussian": 2.0, "laplace": 1.0}


def additive_mechanism(
    name: str,
    deployment: Deployment,
    noise: Noise,
    noise_multiplier: float,
    noise_seed: int,
    *,
    budget: Literal["run", "round"],
) -> Mechanism:
    """``budget`` says what options.epsilon was spent on; the scale of the noise is noise_multiplier * clipping bound.

    Raises ConfigError where options.order is not the norm that the noise protects.
    """
    options, num_rounds, order = deployment.options, deployment.num_rounds, ORDERS[noise]
    check_order(options, order)
    scale = noise_multiplier * options.clipping_bound * deployment.noise_scale
    description = describe(
        deployment,
        name=name,
        noise=noise,
        noise_multiplier=noise_multiplier,
        order=order,
        event=deployment.event(noise, noise_multiplier, num_rounds),
        run_event=deployment.run_event(noise, noise_multiplier, num_rounds),
        budget=budget,
    )

    def add_noise(
        total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState
    ) -> tuple[torch.Tensor, MechanismState]:
        bound_to = noises.binding(noise_seed, round_, total)
        noises.add_noise(total, noise, scale, noises.noise_key(noise_seed, round_, bound_to))
        return total, {BINDING: encoded(bound_to)}

    return Mechanism(
        name=name,
        init=lambda num_parameters: {BINDING: encoded("0" * 32)},
        clipping_bound=lambda state: options.clipping_bound,
        clip=lambda update, bound: clip_update(update, bound, order, exact_grid(bound, deployment.sampler.cohort_size)),
        add_noise=add_noise,
        event=lambda rounds: deployment.event(noise, noise_multiplier, rounds),
        noise_std=lambda state, round_: float(description["noise_std"]),
        description=description,
        run_event=lambda rounds: deployment.run_event(noise, noise_multiplier, rounds),
    )


def check_order(options: PrivacyOptions | LocalPrivacyOptions, order: float) -> None:
    """Refuses (ConfigError) a norm other than the one the mechanism protects."""
    if options.order not in (None, order):
        which = "local_order" if isinstance(options, LocalPrivacyOptions) else "central_order"
        raise ConfigError(
            f"{which}: {options.mechanism} protects norms of order {order:g}, not {options.order:g}; leave it out"
        )


def no_adaptive_clipping(options: PrivacyOptions) -> None:
    """Refuses (ConfigError) adaptive clipping where the mechanism's budget does not pay for it."""
    if options.adaptive_clipping:
        raise ConfigError(
            f"adaptive_clipping: {options.mechanism} has none; use gaussian_moments_accountant, or leave it out"
        )
