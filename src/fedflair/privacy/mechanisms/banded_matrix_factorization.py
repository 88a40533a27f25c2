"""Banded matrix factorisation: rounds' noises that partly cancel, for clients that stay away for b rounds.

Choquette-Choo et al. 2023, arXiv:2306.08153. Drawn cohorts come from b groups in turn (``cyclic_sampling.py``). Each
group takes part in ceil(T / b) rounds at most, in each of which its clients join with probability b * cohort /
population; with columns of norm at most 1, of which no two of one group overlap, the run is that many sampled Gaussian
releases. Under b-min-separation it is accounted whole (``accounting/b_min_separation.py``). Where cohorts rotate, it is
one release in which each client counts sqrt(ceil(T / b)) times.
"""

from __future__ import annotations

from fedflair.errors import ConfigError, PrivacyError
from fedflair.privacy.accounting.calibration import calibrate, quick_noise_multiplier
from fedflair.privacy.contract import Mechanism, PrivacyOptions
from fedflair.privacy.mechanisms.additive import check_order, no_adaptive_clipping
from fedflair.privacy.mechanisms.correlated.banded import banded
from fedflair.privacy.mechanisms.correlated.strategy import Strategy
from fedflair.privacy.mechanisms.deployment import Deployment, make_deployment
from fedflair.privacy.mechanisms.matrix_factorization import MOST_BUFFERS, correlated_mechanism, unamplified
from fedflair.privacy.toeplitz import optimal_coefficients, prefix_error, rounded_column
from fedflair.sampling import SamplerDescription


def banded_matrix_factorization(
    options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> Mechanism:
    """All rounds together are (epsilon, delta)-private; the state holds the last b rounds' noises, float32 [b, P]."""
    no_adaptive_clipping(options)
    check_order(options, 2.0)
    if sampler.kind == "fixed":
        raise ConfigError(
            "cohort_sampling: banded_matrix_factorization is accounted for poisson, b_min_separation and rotating "
            "cohorts; use poisson"
        )
    deployment = make_deployment(options, sampler, num_rounds)
    if sampler.kind == "rotating":
        return unamplified(deployment, banded_strategy(deployment), noise_seed)
    separation = choose_bands(deployment) if options.min_separation is None else options.min_separation
    _check_separation(deployment, separation)
    _check_buffers(options, separation)
    if sampler.kind == "b_min_separation":
        return _by_coins_apart(deployment, separation, noise_seed)
    event = deployment.event("gaussian", 0.0, num_rounds, separation)
    multiplier = calibrate(event, options.epsilon, options.delta, options.accountant)
    return correlated_mechanism(
        deployment,
        banded(num_rounds, options.num_buffers or separation),
        noise_seed,
        multiplier,
        lambda rounds: deployment.event("gaussian", multiplier, rounds, separation),
        lambda rounds: deployment.run_event("gaussian", multiplier, rounds, separation),
        separation,
    )


def _by_coins_apart(deployment: Deployment, separation: int, noise_seed: int) -> Mechanism:
    """For b-min-separation."""
    options, num_rounds = deployment.options, deployment.num_rounds
    if separation == 1:
        raise PrivacyError("min_separation: 1 keeps nobody away from the next round; raise it, or use poisson cohorts")
    column = rounded_column(num_rounds, options.num_buffers or separation, separation)
    multiplier = calibrate(
        deployment.spaced(0.0, num_rounds, column), options.epsilon, options.delta, options.accountant
    )
    return correlated_mechanism(
        deployment,
        banded(num_rounds, options.num_buffers or separation),
        noise_seed,
        multiplier,
        lambda rounds: deployment.spaced(multiplier, rounds, column),
        lambda rounds: deployment.run_spaced(multiplier, rounds, column),
        separation,
    )


def banded_strategy(deployment: Deployment) -> Strategy:
    """For cohorts that rotate: as many bands as rounds between two participations, or 64; more are always better."""
    options, separation = deployment.options, deployment.min_separation
    _check_buffers(options, separation)
    return banded(deployment.num_rounds, options.num_buffers or min(separation, MOST_BUFFERS))


def choose_bands(deployment: Deployment) -> int:
    """The number of bands with the least predicted error, among powers of 2.

    More bands cancel more noise, but bring each client into a larger share of its fewer cohorts: less is gained by
    sampling. At most 64, as the state grows with them.
    """
    limit = min(deployment.num_rounds, MOST_BUFFERS, _most_bands(deployment))
    least = 1 if deployment.sampler.kind == "b_min_separation" else 0
    candidates = [1 << k for k in range(least, limit.bit_length()) if 1 << k <= limit] or [1]
    return min(candidates, key=lambda bands: predicted_error(deployment, bands))


def predicted_error(deployment: Deployment, num_bands: int) -> float:
    """Root mean square error of the running sum, over the clipping bound, by a quick noise multiplier."""
    options, num_rounds = deployment.options, deployment.num_rounds
    if deployment.sampler.kind == "b_min_separation":
        event = deployment.spaced(0.0, num_rounds, rounded_column(num_rounds, num_bands, num_bands))
    else:
        event = deployment.event("gaussian", 0.0, num_rounds, num_bands)
    multiplier = quick_noise_multiplier(event, options.epsilon, options.delta)
    return multiplier * prefix_error(optimal_coefficients(num_rounds, num_bands), num_rounds)


def _most_bands(deployment: Deployment) -> int:
    sampler = deployment.sampler
    return min(deployment.population // deployment.noise_cohort_size, sampler.population // sampler.cohort_size)


def _check_separation(deployment: Deployment, separation: int) -> None:
    if separation < 1:
        raise ConfigError(f"min_separation: {separation} is impossible; it must be at least 1")
    if separation > _most_bands(deployment):
        raise PrivacyError(
            f"min_separation: {separation} groups are too small for cohorts of {deployment.noise_cohort_size} of "
            f"{deployment.population}; at most {_most_bands(deployment)} fits"
        )


def _check_buffers(options: PrivacyOptions, separation: int) -> None:
    if options.num_buffers is not None and options.num_buffers > separation:
        raise PrivacyError(
            f"num_buffers: {options.num_buffers} bands reach beyond min_separation {separation}, so that a client's "
            f"columns would overlap; at most {separation}"
        )
