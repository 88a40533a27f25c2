"""What makes the sum of a cohort's updates private, and what is promised: a group of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedflair.config.checks import (
    at_least_one,
    at_least_one_if_given,
    fraction,
    positive,
    probability,
    require,
)
from fedflair.errors import ConfigError


@dataclass(frozen=True)
class CentralMechanismOptions:
    """Central privacy: what makes the sum of a cohort private, and what is promised.

    Args:
        central_privacy_mechanism: What makes the sum of a cohort's updates private: none, gaussian,
            gaussian_moments_accountant, laplace, norm_clipping_only; correlated over rounds
            banded_matrix_factorization, banded_inverse_square_root, buffered_linear_toeplitz, tree_aggregation; auto,
            the one with the least predicted error; or a plugin's.
        central_epsilon: Privacy budget of the whole run.
        central_delta: Failure probability of the guarantee, below 1/population and 1/number of users.
        central_privacy_clipping_bound: Bound on the norm of a client's update.
        central_order: Order of that norm; the mechanism's own if not given (norm_clipping_only takes any).
        min_separation: Rounds between two participations of a client (banded_matrix_factorization, rotating cohorts);
            else chosen. Other mechanisms enforce none.
        num_buffers: Vectors as long as the model that correlated noise keeps between rounds; else chosen.
        adaptive_clipping: Move the clipping bound towards a quantile of the norms (gaussian_moments_accountant).
        adaptive_clipping_quantile: Share of updates that the bound should leave whole.
        adaptive_clipping_learning_rate: Step of the bound's logarithm in a round.
        adaptive_clipping_noise_std: Noise on the count of whole updates, in clients; 1/20 of the cohort if not given.
        clipping_groups: Let adaptive_clipping move a bound of each group of parameters: blocks of layers, or kinds
            (head, weights, vectors).
        private_metrics: Share of the budget that loss and counts are released with, each round, under the same epsilon;
            0 leaves them without noise, and marked as not covered.
        private_metrics_loss_bound: Mean loss of a client that counts at most.
        private_metrics_images_bound: Images of a client that count at most.
        population: Users that the accountant assumes; the number of training clients if not given.
        noise_cohort_size: Cohort whose noise is simulated, scaled down to cohort_size; cohort_size if not given.
        allow_large_delta: Accept a delta at or above 1/population, as in the published private runs.
        accountant: Composition by privacy loss distributions or by Renyi divergence; auto is pld where it has a bound,
            monte_carlo for b_min_separation cohorts, else rdp.
    """

    central_privacy_mechanism: str = "none"
    central_epsilon: float = 2.0
    central_delta: float = 1e-5
    central_privacy_clipping_bound: float = 0.1
    central_order: float | None = None
    min_separation: int | None = None
    num_buffers: int | None = None
    adaptive_clipping: bool = False
    adaptive_clipping_quantile: float = 0.5
    adaptive_clipping_learning_rate: float = 0.2
    adaptive_clipping_noise_std: float | None = None
    clipping_groups: Literal["none", "blocks", "kinds"] = "none"
    private_metrics: float = 0.0
    private_metrics_loss_bound: float = 1.0
    private_metrics_images_bound: int = 50
    population: int | None = None
    noise_cohort_size: int | None = None
    allow_large_delta: bool = False
    accountant: Literal["auto", "pld", "rdp"] = "auto"

    def __post_init__(self) -> None:
        at_least_one_if_given(self, "central_order", "min_separation", "num_buffers", "population", "noise_cohort_size")
        positive(self, "central_epsilon", "central_privacy_clipping_bound", "adaptive_clipping_learning_rate")
        fraction(self, "private_metrics")
        positive(self, "private_metrics_loss_bound")
        at_least_one(self, "private_metrics_images_bound")
        probability(self, "central_delta")
        quantile, mechanism = self.adaptive_clipping_quantile, self.central_privacy_mechanism
        require(0 <= quantile <= 1, "adaptive_clipping_quantile", quantile, "in [0, 1]")
        if self.adaptive_clipping and mechanism != "gaussian_moments_accountant":
            raise ConfigError(
                f"adaptive_clipping: {mechanism} has none; use --central_privacy_mechanism gaussian_moments_accountant"
            )
        if self.adaptive_clipping and self.clipping_groups != "none" and self.private_metrics > 0:
            raise ConfigError(
                "private_metrics: not accounted for where groups of parameters have bounds of their own; drop it, or "
                "clipping_groups"
            )
