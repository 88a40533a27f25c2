"""C's column is a sum of a few falling powers, so that a few vectors hold all that earlier rounds have in a later one.

c_0 = 1, c_t = sum_i omega_i theta_i^(t-1): noise y_t = z_t - sum_i omega_i s_i, and then each buffer s_i becomes
theta_i s_i + y_t. McMahan, Xu and Zhang 2024, arXiv:2408.08868, for clients that come back. With omega >= 0 of sum at
most 1 and theta in [0, 1) the column falls and is not negative.
"""

from __future__ import annotations

import numpy as np
import torch

from fedflair.privacy.mechanisms.correlated.strategy import (
    State,
    Strategy,
    Vector,
    participations,
    row_norms,
    toeplitz_matrix,
    toeplitz_sensitivity,
)

# Of decays whose powers outlast any run.
_MOST_DECAY = 1 - 1e-9
# A buffer is a vector as long as the model: what it has to lower the error to.
_WORTH = 0.99
_MOST_BUFFERS = 6


def buffered_linear_toeplitz(num_rounds: int, num_buffers: int | None, min_separation: int) -> Strategy:
    """The strategy of so many buffers with the least mean error of running sums, for clients ``min_separation`` apart.

    num_buffers: None is as many as each lower the error by a percent; a handful, as the published ones have.
    """
    if num_buffers is not None:
        return _of(num_rounds, num_buffers, min_separation)
    best = _of(num_rounds, 1, min_separation)
    for more in range(2, _MOST_BUFFERS + 1):
        found = _of(num_rounds, more, min_separation)
        if _loss(found, min_separation) > _WORTH * _loss(best, min_separation):
            break
        best = found
    return best


def _loss(strategy: Strategy, min_separation: int) -> float:
    return strategy.mean_error * strategy.sensitivity(strategy.num_rounds, min_separation)


def _of(num_rounds: int, num_buffers: int, min_separation: int) -> Strategy:
    theta, omega = _optimal(num_rounds, num_buffers, min_separation)
    column, inverse = _column(theta, omega, num_rounds), _inverse(theta, omega, num_rounds)

    def init(num_parameters: int) -> State:
        return {
            "buffers": torch.zeros(num_buffers, num_parameters),
            "theta": torch.from_numpy(theta.copy()),
            "omega": torch.from_numpy(omega.copy()),
        }

    def correlate(fresh: torch.Tensor, round_: int, state: State) -> tuple[torch.Tensor, State]:
        before = state["buffers"].to(fresh.device)
        decay, scale = state["theta"].to(before), state["omega"].to(before)
        # Rounded to float32, the buffers are a little other than defined: 1e-6 of the noise, whatever the sums are.
        noise = fresh.sub_(torch.mv(before.t(), scale))
        after = before.mul(decay[:, None]).add_(noise)
        return noise, {**state, "buffers": after}

    def matrix(rounds: int, state: State) -> Vector:
        decay, scale = (state[name].double().cpu().numpy() for name in ("theta", "omega"))
        return toeplitz_matrix(_column(decay, scale, rounds), rounds)

    return Strategy(
        name="buffered_linear_toeplitz",
        num_buffers=num_buffers,
        growth=row_norms(inverse),
        errors=row_norms(np.cumsum(inverse)),
        sensitivity=lambda rounds, separation: toeplitz_sensitivity(column, rounds, separation),
        init=init,
        correlate=correlate,
        matrix=matrix,
    )


def _column(theta: Vector, omega: Vector, num_rounds: int) -> Vector:
    """First column of C: float64 [T]."""
    return np.concatenate([[1.0], _powers(theta, num_rounds - 1) @ omega])


def _inverse(theta: Vector, omega: Vector, num_rounds: int) -> Vector:
    """First column of C^-1: float64 [T].

    From round to round the buffers are multiplied by diag(theta) - 1 omega^T, which is a symmetric matrix in other
    units: so C^-1 is of the same form, its decays that matrix's eigenvalues.
    """
    root = np.sqrt(omega)
    decays, vectors = np.linalg.eigh(np.diag(theta) - np.outer(root, root))
    return np.concatenate([[1.0], -_powers(decays, num_rounds - 1) @ (root @ vectors) ** 2])


def _powers(decays: Vector, number: int) -> Vector:
    """The 0th to the last of so many powers: float64 [number, buffers]."""
    return np.asarray(decays[None, :] ** np.arange(number)[:, None])


def _optimal(num_rounds: int, num_buffers: int, min_separation: int) -> tuple[Vector, Vector]:
    """(theta, omega), by L-BFGS from ``_start``."""
    from scipy.optimize import minimize

    def objective(logs: Vector) -> tuple[float, Vector]:
        asked = torch.from_numpy(logs).requires_grad_()
        value = _log_error(asked, num_rounds, min_separation)
        value.backward()  # type: ignore[no-untyped-call]  # torch's own types
        gradient = asked.grad
        if gradient is None or not bool(torch.isfinite(gradient).all()) or not bool(torch.isfinite(value)):
            return 1e300, np.zeros_like(logs)
        return float(value.detach()), gradient.numpy()

    starts = [_start(slowest, num_buffers) for slowest in sorted({num_rounds, min_separation})]
    tries = [
        minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-7})
        for start in starts
    ]
    found = min(tries, key=lambda found: float(found.fun))
    theta, omega = np.exp(-np.exp(found.x[:num_buffers])), np.exp(found.x[num_buffers:])
    return np.minimum(theta, _MOST_DECAY), omega / max(1.0, float(omega.sum()))


def _log_error(logs: torch.Tensor, num_rounds: int, min_separation: int) -> torch.Tensor:
    """log(|columns in rounds 0, b, ...|^2 |A C^-1|_F^2). logs: of the rates -log theta, and of omega."""
    rates, omega = logs.exp().chunk(2)
    times = torch.arange(num_rounds - 1, dtype=torch.float64)[:, None]
    one = torch.ones(1, dtype=torch.float64)
    num_times = participations(num_rounds, min_separation)
    beyond = torch.zeros(num_times * min_separation - num_rounds, dtype=torch.float64)
    column = torch.cat([one, torch.exp(-times * rates) @ omega, beyond])
    squared = column.reshape(num_times, min_separation).cumsum(0).reshape(-1)[:num_rounds].square().sum()
    root = omega.sqrt()
    decays, vectors = torch.linalg.eigh(torch.diag(torch.exp(-rates)) - torch.outer(root, root))
    errors = torch.cat([one, -(decays**times) @ (root @ vectors).square()]).cumsum(0)
    weights = torch.arange(num_rounds, 0, -1, dtype=torch.float64)
    too_much = torch.relu(omega.sum() - 1)
    return squared.log() + (weights * errors.square()).sum().log() + 100 * too_much


def _start(slowest: int, num_buffers: int) -> Vector:
    """Powers whose sum is near 1 / sqrt(pi t), the square root of A: that integral over rates a ratio apart.

    slowest: rounds after which the slowest of them has fallen by e.
    """
    rates = np.array([slowest**-0.5]) if num_buffers == 1 else np.geomspace(1 / slowest, 1.0, num_buffers)
    omega = np.sqrt(rates)
    return np.concatenate([np.log(rates), np.log(0.5 * omega / omega.sum())])
