"""The Laplace mechanism: each round is epsilon-private on its own, by noise of scale clipping bound (L1) / epsilon."""

from __future__ import annotations

from fedflair.privacy.accounting.calibration import single_release
from fedflair.privacy.contract import Mechanism, PrivacyOptions
from fedflair.privacy.mechanisms.additive import additive_mechanism, no_adaptive_clipping
from fedflair.privacy.mechanisms.deployment import make_deployment
from fedflair.sampling import SamplerDescription


def laplace(options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int) -> Mechanism:
    """Each single round is (epsilon, 0)-private with everybody in it; what all rounds compose to is described."""
    no_adaptive_clipping(options)
    deployment = make_deployment(options, sampler, num_rounds)
    multiplier = single_release("laplace", options.epsilon, options.delta, deployment.neighbouring)
    return additive_mechanism("laplace", deployment, "laplace", multiplier, noise_seed, budget="round")
