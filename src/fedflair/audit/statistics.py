"""What an audit's numbers say: a lower bound on epsilon from guesses, and an estimate from two samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, norm

Vector = npt.NDArray[np.float64]


def p_value(num_canaries: int, num_guesses: int, num_right: int, epsilon: float, delta: float) -> float:
    """Chance, at most, of ``num_right`` right guesses or more if the run were (epsilon, delta)-private.

    Each of ``num_canaries`` was in or out by a fair coin, and whoever saw what the run released guessed ``num_guesses``
    of the coins. Steinke, Nasr and Jagielski 2023, Privacy Auditing with One (1) Training Run, arXiv:2305.08846.
    """
    right = 1 / (1 + math.exp(-epsilon))
    at_least = binom.sf(num_right - 1, num_guesses, right)
    steps = np.arange(1, num_right + 1)
    if len(steps) == 0 or delta == 0:
        return float(min(at_least, 1.0))
    fewer = binom.sf(num_right - 1 - steps, num_guesses, right) - at_least
    return float(min(at_least + 2 * num_canaries * delta * np.max(fewer / steps), 1.0))


def lower_bound(scores: Vector, included: npt.NDArray[np.bool_], delta: float, confidence: float = 0.95) -> float:
    """A lower bound on epsilon that holds with the given confidence, whatever the canaries' scores depend on.

    Guesses "in" for the highest scores and "out" for the lowest. How many to guess is tried in four ways, which the
    confidence pays for.
    """
    num_canaries = len(scores)
    order = np.argsort(scores)
    shares = (0.02, 0.1, 0.4, 1.0)
    best = 0.0
    for share in shares:
        half = max(1, int(num_canaries * share / 2))
        num_right = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
        bound = _bound(num_canaries, 2 * half, num_right, delta, (1 - confidence) / len(shares))
        best = max(best, bound)
    return best


def _bound(num_canaries: int, num_guesses: int, num_right: int, delta: float, level: float) -> float:
    """The largest epsilon that so many right guesses refute at ``level``."""
    if p_value(num_canaries, num_guesses, num_right, 0.0, delta) > level:
        return 0.0
    low, high = 0.0, 1.0
    while high < 64 and p_value(num_canaries, num_guesses, num_right, high, delta) <= level:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        if p_value(num_canaries, num_guesses, num_right, middle, delta) <= level:
            low = middle
        else:
            high = middle
    return low


def estimate(scores: Vector, included: npt.NDArray[np.bool_], delta: float) -> float:
    """Epsilon of two normal distributions fitted to the scores of canaries in and out.

    After Andrew et al. 2024, One-shot Empirical Privacy Estimation for Federated Learning, arXiv:2302.03098. An
    estimate for this way of looking at a run, not a bound.
    """
    here, there = scores[included], scores[~included]
    first = (float(here.mean()), float(here.std(ddof=1)))
    second = (float(there.mean()), float(there.std(ddof=1)))
    return max(gaussian_epsilon(first, second, delta), gaussian_epsilon(second, first, delta))


def gaussian_epsilon(first: tuple[float, float], second: tuple[float, float], delta: float) -> float:
    """The least epsilon >= 0 with P(S) <= e^epsilon Q(S) + delta for all S; (mean, std) of the normal P and Q."""
    # Standardised to Q; the grid covers P and Q to ten standard deviations.
    mean, std = (first[0] - second[0]) / second[1], first[1] / second[1]
    points = np.linspace(min(mean - 10 * std, -10.0), max(mean + 10 * std, 10.0), 40_001)
    log_p, log_q = norm.logpdf(points, mean, std), norm.logpdf(points)

    def divergence(epsilon: float) -> float:
        excess = -np.expm1(np.minimum(epsilon + log_q - log_p, 0.0))
        return float(np.trapezoid(np.exp(log_p) * excess, points))

    low, high = 0.0, 1.0
    if divergence(low) <= delta:
        return 0.0
    while divergence(high) > delta:
        low, high = high, 2 * high
        if high > 1e6:
            return math.inf
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if divergence(middle) > delta else (low, middle)
    return high


def normal_tail(level: float, num_tests: int = 1) -> float:
    """How many standard deviations one of ``num_tests`` normal numbers exceeds with probability ``level``, at most."""
    return float(norm.isf(level / num_tests))


def largest_correlation(rows: Sequence[Vector]) -> tuple[float, int, int]:
    """(largest absolute correlation of two rows, their positions)."""
    found = np.abs(np.corrcoef(np.stack(rows)))
    np.fill_diagonal(found, 0.0)
    first, second = np.unravel_index(int(np.argmax(found)), found.shape)
    return float(found[first, second]), int(first), int(second)
