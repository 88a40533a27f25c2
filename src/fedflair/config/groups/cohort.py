"""Who is asked in a round, who answers, and how much each answer counts: a group of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedflair.config.checks import at_least_one, at_least_zero, fraction, positive, require


@dataclass(frozen=True)
class CohortOptions:
    """Cohort: who is asked in a round, who answers, and how much each answer counts.

    Args:
        cohort_size: Clients in a round (expected number where cohorts are Poisson).
        cohort_sampling: How cohorts are drawn: by coins (poisson), of a fixed size, all clients in turn (rotating),
            which needs no secret and gains nothing from one, or by coins of those who were in none of the last
            min_separation - 1 cohorts (b_min_separation, with banded_matrix_factorization). auto is fixed without a
            central mechanism, rotating with one that is accounted for nothing else, what goes with the mechanism that
            auto chooses, and else poisson.
        dropout_rate: Probability that a sampled client drops out of a round before it answers.
        over_selection: Share of additional clients that are asked; the fastest cohort_size answers count.
        client_speed_std: Standard deviation of the logarithm of clients' speeds, in the simulated time of a round.
        client_seconds_per_image: Simulated seconds a client of median speed takes for one image.
        client_bandwidth: Simulated bytes a second between a client of median speed and the server.
        weighting: Weight of a client's update in the mean: uniform, or a function of its number of images
            (num_examples, log, sqrt, clipped); or a plugin's.
        weight_clip: Most that a client's images count with weighting clipped.
        compression: What is done to an update before it is sent: none, the largest entries only (top_k), or 8 bits an
            entry (quantize_8bit); or a plugin's.
        top_k_fraction: Share of entries that top_k keeps.
    """

    cohort_size: int = 200
    cohort_sampling: Literal["auto", "poisson", "fixed", "rotating", "b_min_separation"] = "auto"
    dropout_rate: float = 0.0
    over_selection: float = 0.0
    client_speed_std: float = 0.0
    client_seconds_per_image: float = 0.1
    client_bandwidth: float = 1e6
    weighting: str = "uniform"
    weight_clip: int = 64
    compression: str = "none"
    top_k_fraction: float = 0.01

    def __post_init__(self) -> None:
        at_least_one(self, "cohort_size", "weight_clip")
        at_least_zero(self, "over_selection", "client_speed_std")
        positive(self, "client_seconds_per_image", "client_bandwidth")
        fraction(self, "dropout_rate")
        require(0 < self.top_k_fraction <= 1, "top_k_fraction", self.top_k_fraction, "in (0, 1]")
