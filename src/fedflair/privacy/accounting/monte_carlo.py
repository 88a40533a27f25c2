"""Epsilon under b-min-separation: by whole moments alone, or with runs drawn where the likelihood ratio is large.

With L of ``b_min_separation.py``, delta(eps) = E_Q (L - e^eps)_+. For whole a > 1 it is at most
E_Q L^a e^(-(a - 1) eps) (1 - 1/a)^(a - 1) / a (Canonne, Kamath and Steinke 2020, arXiv:2004.00010): that is ``rdp``,
proven and loose. ``monte_carlo`` is the mean, over runs of density L^a / E_Q L^a over Q, of

    (L - e^eps)_+ E_Q L^a / L^a,

which lies between 0 and that same bound, a few times delta, where draws under the user's own distribution would be 0
but for one in a million. A bound for means of bounded numbers (Maurer and Pontil 2009, arXiv:0907.3740) makes of some
ten thousand runs an upper bound that is wrong with a chance that is a small share of delta. That chance is taken from
delta: noise that were too small by an unlucky draw of the accountant is then part of what delta allows.

The draws follow from fixed seeds, so that everybody who asks gets the same. What epsilon to prove is found with draws
of their own, and proven with others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedflair.privacy.accounting.b_min_separation import log_likelihood_ratio
from fedflair.privacy.accounting.replicas import Tilt, make_tilt, tilted_rows
from fedflair.sampling import stream

Vector = npt.NDArray[np.float64]

# Of delta: the chance of one proof's being wrong, and of four thousand, among whose noises a calibration chooses.
_WRONG = 1e-6
_ALL_WRONG = 4e-3
_ORDERS = (*range(2, 11), 12, 14, 16, 20, 24, 28, 32, 40, 48, 64)
# Runs that are drawn together, and in all: to find an epsilon, and to prove one.
_BATCH = 1 << 14
_PILOT = 1 << 14
_MOST_RUNS = 1 << 18
# Rows of all runs of a proof: a minute.
_MOST_ROWS = 8e8
# What a proof is to lie above the estimate, of delta, where so many runs do: half a percent of epsilon.
_SLACK = 0.15
# Epsilons that are tried to be proven one after another: each is larger by the first share at least, later ones by
# more, and so large that the estimate of delta is smaller by the second one, which small epsilons need.
_STEP = 2e-3
_DELTA_STEP = 0.04
_TRIES = 60
# Logarithm of what numbers are cut to, so that their squares are numbers too. With one as large nothing is proven.
_BEYOND = 250.0


@dataclass(frozen=True)
class Coins:
    """What a user's coins and the noise are.

    column: float64 [b], b > 1, what one participation adds to the rows from its round on, over the noise's scale.
    rate: share of all rounds that a user is in, at most 1 / b.
    """

    column: Vector
    rate: float
    num_rounds: int


def moment_epsilon(many: Sequence[tuple[Coins, int]], delta: float) -> float:
    """What whole moments prove of runs, each as often as said, one after the other; inf where they prove nothing."""
    return _by_moments(_moments(many), delta)[0]


def monte_carlo_epsilon(coins: Coins, delta: float) -> float:
    """An upper bound with a chance of being wrong that is part of ``delta``; at most what the moments prove."""
    proven, order = _by_moments(_moments([(coins, 1)]), delta)
    tilt = make_tilt(coins.column, coins.rate, coins.num_rounds, order) if math.isfinite(proven) else None
    if tilt is None:
        return proven
    pilot = _ratios(tilt, coins, "search", _PILOT)
    allowed = delta * (1 - _ALL_WRONG)
    start = _start(tilt, pilot, coins, delta, proven)
    ratios = _ratios(tilt, coins, "proof", _enough(tilt, pilot, start, allowed, _most_runs(coins)))
    for number in range(_TRIES):
        least = _root(tilt, pilot, allowed / (1 + _SLACK) / (1 + _DELTA_STEP) ** number, proven)
        eps = max(start * (1 + _STEP) ** (number + number**2 // 8), least)
        if eps >= proven:
            break
        if _at_most(tilt, ratios, eps, _WRONG * delta / 2 ** (number + 1)) <= allowed:
            return eps
    return proven


def estimated_epsilon(coins: Coins, delta: float) -> float:
    """About what ``monte_carlo_epsilon`` finds, in less time and without a proof: to look for noise with."""
    proven, order = _by_moments(_moments([(coins, 1)]), delta)
    tilt = make_tilt(coins.column, coins.rate, coins.num_rounds, order) if math.isfinite(proven) else None
    if tilt is None:
        return proven
    return _start(tilt, _ratios(tilt, coins, "search", _PILOT), coins, delta, proven)


def _moments(many: Sequence[tuple[Coins, int]]) -> Iterator[tuple[int, float]]:
    """(order, log moment of all together), as far as they can be computed."""
    for order in _ORDERS:
        together = 0.0
        for coins, times in many:
            tilt = make_tilt(coins.column, coins.rate, coins.num_rounds, order)
            if tilt is None:
                return
            together += times * tilt.log_moment
        yield order, together


def _by_moments(moments: Iterator[tuple[int, float]], delta: float) -> tuple[float, int]:
    """(the least epsilon that a moment proves, its order), (inf, 0) without any.

    The epsilons fall with the order, and then rise: what comes after the first larger one is not looked at.
    """
    best, at = math.inf, 0
    for order, log_moment in moments:
        eps = (log_moment + _log_factor(order) - math.log(delta)) / (order - 1)
        if eps < best:
            best, at = max(eps, 0.0), order
        else:
            break
    return best, at


def _log_factor(order: int) -> float:
    return (order - 1) * math.log1p(-1 / order) - math.log(order)


def _ratios(tilt: Tilt, coins: Coins, purpose: str, num_runs: int) -> Vector:
    """log L of runs with the tilt's density, float64 [num_runs] or a few more."""
    found = []
    for batch in range(math.ceil(num_runs / _BATCH)):
        random = stream(0, f"b-min-separation accountant, {purpose}", batch)
        found.append(log_likelihood_ratio(tilted_rows(tilt, _BATCH, random), coins.column, coins.rate))
    return np.concatenate(found)


def _given_away(tilt: Tilt, ratios: Vector, eps: float) -> Vector:
    """What each run adds to the mean that delta(eps) is: (L - e^eps)_+ E_Q L^a / L^a."""
    above = np.maximum(ratios, eps)
    weights = np.exp(np.minimum(tilt.log_moment - (tilt.order - 1) * above, _BEYOND))
    return np.asarray(weights * -np.expm1(eps - above), dtype=np.float64)


def _root(tilt: Tilt, ratios: Vector, delta: float, most: float) -> float:
    """Where the estimate of delta(eps) falls to ``delta``, at most ``most``; 0 where it is less from the start."""
    low, high = 0.0, most
    if float(_given_away(tilt, ratios, low).mean()) <= delta:
        return 0.0
    while high - low > 1e-5 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if float(_given_away(tilt, ratios, middle).mean()) > delta else (low, middle)
    return high


def _start(tilt: Tilt, pilot: Vector, coins: Coins, delta: float, most: float) -> float:
    """The estimate, or the least epsilon that as many runs as there may be could prove; ``most`` where that is less."""
    estimate = _root(tilt, pilot, delta * (1 - _ALL_WRONG) / (1 + _SLACK), most)
    # Where one run in more than there are says all, none of the pilot's does, and their mean says nothing.
    width = delta * 3 * _most_runs(coins) / (7 * _logarithm(delta))
    provable = (tilt.log_moment + _log_factor(tilt.order) - math.log(width)) / (tilt.order - 1)
    return min(max(estimate, provable), most)


def _most_runs(coins: Coins) -> int:
    return int(max(_PILOT, min(_MOST_RUNS, _MOST_ROWS / coins.num_rounds)))


def _logarithm(delta: float) -> float:
    """What the first epsilon that is tried is proven with: of its chance of being wrong."""
    return math.log(2 / (_WRONG * delta / 2))


def _enough(tilt: Tilt, pilot: Vector, eps: float, delta: float, most: int) -> int:
    """Runs with which the proof lies about ``_SLACK`` above the estimate; at most ``most``."""
    logarithm = _logarithm(delta)
    values, slack = _given_away(tilt, pilot, eps), _SLACK * delta
    spread = 2 * logarithm * float(values.var()) / (slack / 2) ** 2
    width = 7 * logarithm * _width(tilt, eps) / 3 / (slack / 2)
    return int(max(_PILOT, min(spread + width, most)))


def _width(tilt: Tilt, eps: float) -> float:
    """The most that one run can add."""
    return math.exp(min(tilt.log_moment - (tilt.order - 1) * eps + _log_factor(tilt.order), _BEYOND))


def _at_most(tilt: Tilt, ratios: Vector, eps: float, wrong: float) -> float:
    """A bound on delta(eps) that is exceeded with chance ``wrong`` at most (Maurer and Pontil 2009, theorem 4)."""
    values, logarithm, num_runs = _given_away(tilt, ratios, eps), math.log(2 / wrong), len(ratios)
    deviation = math.sqrt(2 * float(values.var(ddof=1)) * logarithm / num_runs)
    return float(values.mean()) + deviation + 7 * _width(tilt, eps) * logarithm / (3 * (num_runs - 1))
