"""The Gaussian mechanism, calibrated for one release (``gaussian``) or all rounds (``gaussian_moments_accountant``).

Each client's update is clipped to L2 norm <= clipping bound, and N(0, std^2) noise with std = noise multiplier *
clipping bound is added once to each coordinate of a cohort's sum.
"""

from __future__ import annotations

from fedflair.privacy.accounting.calibration import calibrate, single_release
from fedflair.privacy.contract import Mechanism, PrivacyOptions
from fedflair.privacy.mechanisms.adaptive_clipping import adaptive_gaussian, check_adaptive_clipping
from fedflair.privacy.mechanisms.additive import additive_mechanism, check_order, no_adaptive_clipping
from fedflair.privacy.mechanisms.deployment import make_deployment
from fedflair.privacy.mechanisms.group_clipping import grouped_gaussian
from fedflair.sampling import SamplerDescription


def gaussian(options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int) -> Mechanism:
    """Each single round is (epsilon, delta)-private with everybody in it; what all rounds compose to is described.

    The analytic calibration of Balle and Wang (2018, arXiv:1805.06530).
    """
    no_adaptive_clipping(options)
    deployment = make_deployment(options, sampler, num_rounds)
    multiplier = single_release("gaussian", options.epsilon, options.delta, deployment.neighbouring)
    return additive_mechanism("gaussian", deployment, "gaussian", multiplier, noise_seed, budget="round")


def gaussian_moments_accountant(
    options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> Mechanism:
    """All rounds together are (epsilon, delta)-private; with ``adaptive_clipping`` the bound follows the norms."""
    deployment = make_deployment(options, sampler, num_rounds)
    check_order(options, 2.0)
    if options.adaptive_clipping:
        check_adaptive_clipping(deployment)
    event = deployment.event("gaussian", 0.0, num_rounds)
    multiplier = calibrate(event, options.epsilon, options.delta, options.accountant)
    name = "gaussian_moments_accountant"
    if options.adaptive_clipping and options.clipping_groups != "none":
        return grouped_gaussian(name, deployment, multiplier, noise_seed)
    if options.adaptive_clipping:
        return adaptive_gaussian(name, deployment, multiplier, noise_seed)
    return additive_mechanism(name, deployment, "gaussian", multiplier, noise_seed, budget="run")
