"""C is banded: round t's noise depends on those of the b - 1 rounds before, which are kept (arXiv:2306.08153).

Columns b or more apart share no row: a client that takes part in k rounds, any two of them b or more apart, counts
sqrt(k) times, as columns have norm 1. b vectors as long as the model are what that takes.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from fedflair.privacy.mechanisms.correlated.strategy import State, Strategy, participations, toeplitz_matrix
from fedflair.privacy.toeplitz import growth, optimal_coefficients, prefix_errors


def banded(num_rounds: int, num_bands: int) -> Strategy:
    """The strategy with the least mean error of running sums for one participation within the bands."""
    coefficients = optimal_coefficients(num_rounds, num_bands)

    def sensitivity(rounds: int, min_separation: int) -> float:
        if len(coefficients) <= min_separation:
            return math.sqrt(participations(rounds, min_separation))
        # Any participations at all: what b rounds have in them counts once, and whatever overlaps adds up.
        overlaps = math.ceil(len(coefficients) / min_separation)
        return math.sqrt(participations(rounds, min_separation) * overlaps)

    def init(num_parameters: int) -> State:
        noises = torch.zeros(len(coefficients), num_parameters)
        return {"noises": noises, "coefficients": torch.from_numpy(coefficients.copy())}

    def correlate(fresh: torch.Tensor, round_: int, state: State) -> tuple[torch.Tensor, State]:
        noises = state["noises"].to(fresh.device)
        noise = _correlate(fresh, noises, state["coefficients"], round_)
        return noise, {**state, "noises": noises}

    return Strategy(
        name="banded_matrix_factorization",
        num_buffers=len(coefficients),
        growth=growth(coefficients, num_rounds),
        errors=prefix_errors(coefficients, num_rounds),
        sensitivity=sensitivity,
        init=init,
        correlate=correlate,
        matrix=lambda rounds, state: toeplitz_matrix(state["coefficients"].double().cpu().numpy(), rounds),
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
