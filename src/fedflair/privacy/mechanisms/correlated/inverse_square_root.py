"""C^-1 is banded: the first p entries of the square root of A^-1 (Kalinin et al. 2025, arXiv:2505.12128).

Round t's noise is d_0 z_t + ... + d_(p-1) z_(t-p+1) of the fresh noises of the last p rounds, which are kept. d is 1
less positive numbers r_1, r_2, ..., whose sum is below 1, so C's column u is that of a renewal process, u_n = r_1
u_(n-1) + ... + r_(p-1) u_(n-p+1): positive, and falling. Up to u_(p-1) it is the square root of A's own column, which
falls; and from n = p - 1 on u_n - u_(n+1) is the sum of r_j (u_(n-j) - u_(n-j+1)), none of which is below 0.
"""

from __future__ import annotations

import numpy as np
import torch

from fedflair.privacy.mechanisms.correlated.strategy import (
    State,
    Strategy,
    Vector,
    row_norms,
    toeplitz_matrix,
    toeplitz_sensitivity,
)
from fedflair.privacy.toeplitz import divided


def banded_inverse_square_root(num_rounds: int, num_bands: int) -> Strategy:
    """The strategy with ``num_bands`` bands in C^-1; nothing of it is searched for."""
    inverse = inverse_square_root_coefficients(min(num_bands, num_rounds))
    impulse = np.zeros(num_rounds)
    impulse[0] = 1.0
    # Rounding can make neighbours that are alike rise in the last digit.
    column = np.minimum.accumulate(divided(impulse, inverse))
    whole = np.zeros(num_rounds)
    whole[: len(inverse)] = inverse

    def init(num_parameters: int) -> State:
        return {
            "fresh": torch.zeros(len(inverse), num_parameters),
            "inverse": torch.from_numpy(inverse.copy()),
        }

    def correlate(fresh: torch.Tensor, round_: int, state: State) -> tuple[torch.Tensor, State]:
        kept, values = state["fresh"].to(fresh.device), state["inverse"].double().cpu().numpy()
        num_bands = len(values)
        weights = np.zeros(num_bands)
        for lag in range(1, num_bands):
            weights[(round_ - lag) % num_bands] = values[lag]
        past = torch.mv(kept.t(), torch.from_numpy(weights).to(kept))
        # Round t owns row t mod p, which it does not read itself.
        kept[round_ % num_bands].copy_(fresh)
        return fresh.mul_(float(values[0])).add_(past), {**state, "fresh": kept}

    def matrix(rounds: int, state: State) -> Vector:
        return toeplitz_matrix(divided(impulse[:rounds], state["inverse"].double().cpu().numpy()), rounds)

    return Strategy(
        name="banded_inverse_square_root",
        num_buffers=len(inverse),
        growth=row_norms(whole),
        errors=row_norms(np.cumsum(whole)),
        sensitivity=lambda rounds, min_separation: toeplitz_sensitivity(column, rounds, min_separation),
        init=init,
        correlate=correlate,
        matrix=matrix,
    )


def inverse_square_root_coefficients(num_bands: int) -> Vector:
    """The first entries of (1 - x)^(1/2): 1, -1/2, -1/8, -1/16, ..."""
    steps = np.arange(1, num_bands)
    return np.cumprod(np.concatenate([[1.0], (2 * steps - 3) / (2 * steps)]))
