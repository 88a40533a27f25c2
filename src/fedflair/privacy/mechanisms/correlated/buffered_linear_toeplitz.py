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

# The largest below 1 that float32 holds.
_MOST_DECAY = 1 - 2.0**-24
# Logarithms of rates and weights are rounded to a multiple of 1 / _LATTICE, so that another machine, whose search ends
# elsewhere in the seventh digit, finds the same numbers; it costs 1e-5 of the error.
_LATTICE = 128
# Powers whose rates are this near are one; and a weight that makes no difference.
_ALIKE, _NOTHING = 1.05, 1e-5
# A buffer is a vector as long as the model: what it has to lower the error to.
_WORTH = 0.99
_MOST_BUFFERS = 6


def buffered_linear_toeplitz(num_rounds: int, num_buffers: int | None, min_separation: int) -> Strategy:
    """The strategy of so many buffers with the least mean error of running sums, for clients ``min_separation`` apart.

    num_buffers: at most; None is as many as each lower the error by a percent: a handful, as the published ones have.
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
    num_buffers = len(theta)
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
    """(theta, omega) of that many buffers or, where more say nothing, fewer; by L-BFGS from ``_start``."""
    from scipy.optimize import minimize

    def objective(logs: Vector) -> tuple[float, Vector]:
        asked = torch.from_numpy(logs).requires_grad_()
        value = _log_error(asked, num_rounds, min_separation)
        value.backward()  # type: ignore[no-untyped-call]  # torch's own types
        gradient = asked.grad
        if gradient is None or not bool(torch.isfinite(gradient).all()) or not bool(torch.isfinite(value)):
            return 1e300, np.zeros_like(logs)
        return float(value.detach()), gradient.numpy()

    def least(start: Vector, tolerance: float) -> Vector:
        options = {"maxiter": 1000, "ftol": tolerance, "gtol": 1e-9}
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        return np.asarray(found.x)

    starts = [_start(slowest, num_buffers) for slowest in sorted({num_rounds, min_separation})]
    best = min((least(start, 1e-7) for start in starts), key=lambda logs: objective(logs)[0])
    while True:
        best, before = least(_merged(best), 0.0), len(best)
        if len(_merged(best)) == len(best) <= before:
            break
    rates, omega = np.exp(np.round(best * _LATTICE) / _LATTICE).reshape(2, -1)
    omega /= max(1.0, float(omega.sum()) * (1 + 1e-6))
    return _as_kept(np.minimum(np.exp(-rates), _MOST_DECAY)), _as_kept(omega)


def _merged(logs: Vector) -> Vector:
    """The slowest power first; powers alike in one, and without those that say nothing."""
    rates, omega = np.exp(logs).reshape(2, -1)
    kept: list[list[float]] = []
    for rate, weight in sorted(zip(rates, omega)):
        if kept and rate < _ALIKE * kept[-1][0]:
            kept[-1][1] += weight
        else:
            kept.append([rate, weight])
    kept = [one for one in kept if one[1] > _NOTHING] or kept[:1]
    return np.asarray(np.log(np.array(kept).T).ravel())


def _as_kept(values: Vector) -> Vector:
    """What float32 holds of them: the buffers are multiplied by the very numbers that sensitivity is computed of."""
    return values.astype(np.float32).astype(np.float64)


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
