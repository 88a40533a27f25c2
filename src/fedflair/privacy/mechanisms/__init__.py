"""Privacy mechanisms: what is done to each client's update and to the sum of a cohort, and what that costs."""

from __future__ import annotations

from dataclasses import replace

from fedflair.errors import ConfigError
from fedflair.privacy.accounting.events import PrivacyEvent
from fedflair.privacy.contract import (
    ClipResult,
    CohortStats,
    LocalMechanism,
    LocalPrivacyOptions,
    MakeLocalMechanism,
    MakeMechanism,
    Mechanism,
    MechanismState,
    PrivacyOptions,
)
from fedflair.privacy.mechanisms.auto import auto
from fedflair.privacy.mechanisms.banded_matrix_factorization import banded_matrix_factorization
from fedflair.privacy.mechanisms.clipping import none, norm_clipping_only
from fedflair.privacy.mechanisms.gaussian import gaussian, gaussian_moments_accountant
from fedflair.privacy.mechanisms.laplace import laplace
from fedflair.privacy.mechanisms.local import local_gaussian, local_laplace, local_none, local_norm_clipping_only
from fedflair.privacy.mechanisms.matrix_factorization import (
    banded_inverse_square_root,
    buffered_linear_toeplitz,
    tree_aggregation,
)
from fedflair.privacy.mechanisms.noise import local_noise_seed
from fedflair.privacy.mechanisms.origin import with_origin
from fedflair.privacy.mechanisms.private_metrics import split_of, with_metrics
from fedflair.sampling import SamplerDescription

MECHANISMS: dict[str, MakeMechanism] = {
    "none": none,
    "norm_clipping_only": norm_clipping_only,
    "gaussian": gaussian,
    "gaussian_moments_accountant": gaussian_moments_accountant,
    "laplace": laplace,
    "banded_matrix_factorization": banded_matrix_factorization,
    "banded_inverse_square_root": banded_inverse_square_root,
    "buffered_linear_toeplitz": buffered_linear_toeplitz,
    "tree_aggregation": tree_aggregation,
    "auto": auto,
}

LOCAL_MECHANISMS: dict[str, MakeLocalMechanism] = {
    "none": local_none,
    "norm_clipping_only": local_norm_clipping_only,
    "gaussian": local_gaussian,
    "laplace": local_laplace,
}


def make_mechanism(options: PrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int) -> Mechanism:
    """The central mechanism named in ``options``, for a run of ``num_rounds`` rounds over cohorts as ``sampler`` draws.

    noise_seed: 128 bits from the operating system, or the run's seed in a simulation. Calibration may take seconds.
    Raises ConfigError for impossible options and PrivacyError for a promise that cannot be kept.
    """
    if options.mechanism not in MECHANISMS:
        known = ", ".join(MECHANISMS)
        raise ConfigError(f"central_privacy_mechanism: {options.mechanism!r} is unknown; choose one of {known}")
    make, split = MECHANISMS[options.mechanism], split_of(options)
    if split is not None:
        made = with_metrics(make, options, split, sampler, num_rounds, noise_seed)
    else:
        made = make(options, sampler, num_rounds, noise_seed)
    return replace(made, description=with_origin(made.description, options.origin))


def make_local_mechanism(
    options: LocalPrivacyOptions, sampler: SamplerDescription, num_rounds: int, noise_seed: int
) -> LocalMechanism:
    """The local mechanism named in ``options``. Raises ConfigError for impossible options."""
    if options.mechanism not in LOCAL_MECHANISMS:
        known = ", ".join(LOCAL_MECHANISMS)
        raise ConfigError(f"local_privacy_mechanism: {options.mechanism!r} is unknown; choose one of {known}")
    made = LOCAL_MECHANISMS[options.mechanism](options, sampler, num_rounds, noise_seed)
    return replace(made, description=with_origin(made.description, options.origin))


__all__ = [
    "LOCAL_MECHANISMS",
    "MECHANISMS",
    "ClipResult",
    "CohortStats",
    "LocalMechanism",
    "LocalPrivacyOptions",
    "Mechanism",
    "MechanismState",
    "PrivacyEvent",
    "PrivacyOptions",
    "local_noise_seed",
    "make_local_mechanism",
    "make_mechanism",
]
