"""Banded matrix factorisation: rounds' noises that partly cancel, for clients that stay away for b rounds.

Choquette-Choo et al. 2023, arXiv:2306.08153. Cohorts come from b groups in turn (``cyclic_sampling.py``). Each group
takes part in ceil(T / b) rounds at most, in each of which its clients join with probability b * cohort / population;
with columns of norm at most 1, of which no two of one group overlap, the run is that many sampled Gaussian releases.
"""

from __future__ import annotations

import numpy as np
import torch

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.accountants import calibrate, quick_noise_multiplier
from fedflair.privacy.contract import BINDING, CohortStats, Mechanism, MechanismState, PrivacyOptions, encoded
from fedflair.privacy.mechanisms.additive import check_order, no_adaptive_clipping
from fedflair.privacy.mechanisms.clipping import clip_update, exact_grid
from fedflair.privacy.mechanisms.deployment import Deployment, describe, make_deployment
from fedflair.privacy.mechanisms.noise import binding, noise_key, on_grid, standard_normal
from fedflair.privacy.mechanisms.toeplitz import growth, optimal_coefficients, prefix_error
from fedflair.sampling import SamplerDescription

_MAX_AUTO_BANDS = 64


def banded_matrix_factorization(
    options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> Mechanism:
    """All rounds together are (epsilon, delta)-private; the state holds the last b rounds' noises, float32 [b, P]."""
    no_adaptive_clipping(options)
    check_order(options, 2.0)
    if sampler.kind != "poisson":
        raise ConfigError("cohort_sampling: banded_matrix_factorization is accounted for poisson cohorts; use poisson")
    deployment = make_deployment(options, sampler, num_rounds)
    num_bands = choose_bands(deployment) if options.min_separation is None else options.min_separation
    _check_bands(deployment, num_bands)
    event = deployment.event("gaussian", 0.0, num_rounds, num_bands)
    multiplier = calibrate(event, options.epsilon, options.delta, options.accountant)
    coefficients = torch.from_numpy(optimal_coefficients(num_rounds, num_bands))
    std = multiplier * options.clipping_bound * deployment.noise_scale
    description = describe(
        deployment,
        name="banded_matrix_factorization",
        noise="gaussian",
        noise_multiplier=multiplier,
        order=2.0,
        event=deployment.event("gaussian", multiplier, num_rounds, num_bands),
        run_event=deployment.run_event("gaussian", multiplier, num_rounds, num_bands),
        min_separation=num_bands,
    )

    def init(num_parameters: int) -> MechanismState:
        # The coefficients travel with the state: another machine's optimiser may differ in the last digit.
        noises = torch.zeros(len(coefficients), num_parameters)
        return {"noises": noises, "coefficients": coefficients.clone(), BINDING: encoded("0" * 32)}

    def add_noise(
        total: torch.Tensor, cohort: CohortStats, round_: int, state: MechanismState
    ) -> tuple[torch.Tensor, MechanismState]:
        noises = state["noises"].to(total.device)
        bound_to = binding(noise_seed, round_, total)
        fresh = standard_normal(noise_key(noise_seed, round_, bound_to), total.numel()).to(total.device)
        noise = _correlate(fresh, noises, state["coefficients"], round_)
        total.copy_(on_grid(noise.mul_(std).add_(total), std))
        return total, {**state, "noises": noises, BINDING: encoded(bound_to)}

    def noise_std(state: MechanismState, round_: int) -> float:
        return std * float(growth(state["coefficients"].double().cpu().numpy(), round_ + 1)[-1])

    return Mechanism(
        name="banded_matrix_factorization",
        init=init,
        clipping_bound=lambda state: options.clipping_bound,
        clip=lambda update, bound: clip_update(update, bound, 2.0, exact_grid(bound, sampler.cohort_size)),
        add_noise=add_noise,
        event=lambda rounds: deployment.event("gaussian", multiplier, rounds, num_bands),
        noise_std=noise_std,
        description={
            **description,
            # Of the first round; later ones have the noises before them in theirs too.
            "noise_std": std * float(growth(coefficients.numpy(), 1)[0]),
            "prefix_error": multiplier * prefix_error(coefficients.numpy(), num_rounds),
        },
        run_event=lambda rounds: deployment.run_event("gaussian", multiplier, rounds, num_bands),
    )


def choose_bands(deployment: Deployment) -> int:
    """The number of bands with the least predicted error, among powers of 2.

    More bands cancel more noise, but bring each client into a larger share of its fewer cohorts: less is gained by
    sampling. At most 64, as the state grows with them.
    """
    num_rounds = deployment.num_rounds
    limit = min(num_rounds, _MAX_AUTO_BANDS, _most_bands(deployment))
    candidates = [1 << k for k in range(limit.bit_length()) if 1 << k <= limit]
    return min(candidates, key=lambda bands: predicted_error(deployment, bands))


def predicted_error(deployment: Deployment, num_bands: int) -> float:
    """Root mean square error of the running sum, over the clipping bound, by a quick noise multiplier."""
    options, num_rounds = deployment.options, deployment.num_rounds
    event = deployment.event("gaussian", 0.0, num_rounds, num_bands)
    multiplier = quick_noise_multiplier(event, options.epsilon, options.delta)
    return multiplier * prefix_error(optimal_coefficients(num_rounds, num_bands), num_rounds)


def _most_bands(deployment: Deployment) -> int:
    sampler = deployment.sampler
    return min(deployment.population // deployment.noise_cohort_size, sampler.population // sampler.cohort_size)


def _check_bands(deployment: Deployment, num_bands: int) -> None:
    if num_bands < 1:
        raise ConfigError(f"min_separation: {num_bands} is impossible; it must be at least 1")
    if num_bands > _most_bands(deployment):
        raise PrivacyError(
            f"min_separation: {num_bands} groups are too small for cohorts of {deployment.noise_cohort_size} of "
            f"{deployment.population}; at most {_most_bands(deployment)} fits"
        )


def _correlate(fresh: torch.Tensor, noises: torch.Tensor, coefficients: torch.Tensor, round_: int) -> torch.Tensor:
    """This round's row of C^-1 Z (float64 [P]), from fresh noise and the rounds before; kept in the ring ``noises``.

    fresh: float64 [P]. noises: float32 [b, P]; what rounding an earlier row to float32 lost is 1e-7 of the noise.
    Solves c_0 y_t + c_1 y_(t-1) + ... = z_t. Round t owns row t mod b, which its own equation does not read: doing a
    round again from its own result gives the same noise.
    """
    num_bands = len(coefficients)
    values = coefficients.double().cpu().numpy()
    weights = np.zeros(num_bands)
    for lag in range(1, num_bands):
        if lag <= round_:
            weights[(round_ - lag) % num_bands] = -values[lag] / values[0]
    past = torch.mv(noises.t(), torch.from_numpy(weights).to(noises))
    noise = fresh.div_(float(values[0])).add_(past)
    noises[round_ % num_bands].copy_(noise)
    return noise
