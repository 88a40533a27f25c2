"""The whole trade-off curve of what was released (f-DP), and what it says of several clients together.

Whoever tells two neighbouring lists of clients apart, and is wrong about the first with probability alpha, is wrong
about the second with probability f(alpha) at least (Dong, Roth and Su 2019, arXiv:1905.02383). The curve here lies on
or below that of every pair of neighbours: it is the envelope of what epsilons from 0 up promise, each with the delta of
a distribution of losses that is rounded upwards, or for Gaussian noise without sampling the exact one.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.accountants import (
    SMALLEST_PLD_DELTA,
    epsilon,
    quiet,
    renyi_epsilons,
    resolve_accountant,
)
from fedflair.privacy.accounting.cache import remembered
from fedflair.privacy.accounting.events import PrivacyEvent, is_sampled, without_sampling
from fedflair.privacy.accounting.fixed_cohorts import fixed_group_epsilon
from fedflair.privacy.accounting.losses import composed_losses
from fedflair.privacy.accounting.persons import person_epsilon
from fedflair.privacy.accounting.together import gaussian_mu

Array = npt.NDArray[np.float64]

# Epsilons whose promises make up the curve: as many, up to where delta is as small as the arithmetic tells.
_NUM_PROMISES = 1500
_MOST_EPSILON = 600.0
# Of errors of the first kind, as many are looked at in a chain of neighbours; each is this much larger than the last.
_CHAIN_STEP = 3e-3
_CHAIN_SMALLEST = 1e-40


@dataclass(frozen=True)
class TradeOff:
    """What is promised at every error of the first kind.

    epsilons, deltas: float64 [promises], each holds; of Gaussian noise without sampling none, but its ``mu``.
    """

    epsilons: Array
    deltas: Array
    mu: float | None

    def type_2(self, type_1: Array) -> Array:
        """The least error of the second kind at each error of the first kind, float64 in [0, 1]."""
        from scipy.stats import norm

        if self.mu is not None:
            return np.asarray(norm.cdf(norm.isf(type_1) - self.mu), dtype=np.float64)
        return np.clip(1 - self.power(type_1), 0.0, 1.0)

    def power(self, type_1: Array) -> Array:
        """The most that 1 less the error of the second kind can be."""
        least = np.ones_like(type_1)
        for eps, delta in zip(self.epsilons, self.deltas):
            ratio = math.exp(eps)
            np.minimum(least, delta + ratio * type_1, out=least)
            np.minimum(least, 1 - (1 - delta - type_1) / ratio, out=least)
        return least


def trade_off(event: PrivacyEvent, delta: float) -> TradeOff:
    """Raises PrivacyError where no distribution of losses bounds the event. delta: sets how fine the grid is."""
    if event.noise == "gaussian" and not is_sampled(event) and event.noise_multiplier > 0:
        none = np.zeros(0)
        return TradeOff(none, none, gaussian_mu(event))
    if event.column:
        raise PrivacyError("curve: none is known for b_min_separation cohorts; leave it out, or use poisson ones")
    finest = max(delta, SMALLEST_PLD_DELTA)
    resolve_accountant(event, "pld", finest)
    if event.noise_multiplier == 0 or event.count == 0:
        raise PrivacyError("curve: without noise there is none, as everything is told; give --noise_multiplier")
    try:
        with quiet():
            losses = composed_losses([event], finest)
            most = min(float(losses.get_epsilon_for_delta(2 * SMALLEST_PLD_DELTA)), _MOST_EPSILON)
            epsilons = np.linspace(0.0, most, _NUM_PROMISES)
            deltas = np.asarray(losses.get_delta_for_epsilon(epsilons), dtype=np.float64)
    except OverflowError as error:
        raise PrivacyError("curve: the losses are larger than can be computed with; raise the noise") from error
    # What the rounding of Fourier transforms may hide.
    deltas = np.minimum.accumulate(np.clip(deltas + SMALLEST_PLD_DELTA, 0.0, 1.0))
    return TradeOff(epsilons, deltas, None)


def points_of_curve(curve: TradeOff) -> tuple[Array, Array]:
    """(errors of the first kind, of the second): 0 to 1, closer at both ends; each point is a promise of its own."""
    small = np.logspace(-10, -1, 181)
    type_1 = np.concatenate([[0.0], small, np.linspace(0.1, 0.9, 161)[1:-1], 1 - small[::-1], [1.0]])
    return type_1, curve.type_2(type_1)


def group_epsilon(
    event: PrivacyEvent, size: int, delta: float, *, apart: bool = False, drawn_from: tuple[int, int] | None = None
) -> float:
    """Epsilon for ``size`` clients together, at ``delta``: the least that a proof is known for here.

    All of them are zeroed out, or replaced. apart: they may take part in different rounds of those that the event
    counts as one (``min_separation``). drawn_from: the sizes of a cohort and of the population, where they are known.
    """
    if size == 1 or event.noise_multiplier == 0 or event.count == 0:
        return epsilon(event, delta)
    # Without the help of sampling, the sums are that much further apart.
    everybody = without_sampling(replace(event, noise_multiplier=event.noise_multiplier / size))
    bounds = [epsilon(everybody, delta)]
    if is_sampled(event) and not event.column:
        if event.sampling == "poisson" and not apart:
            mixture = person_epsilon(event, size, delta)
            bounds += [] if mixture is None else [mixture]
        if len(bounds) == 1 and delta >= SMALLEST_PLD_DELTA:
            inputs = {**event.as_dict(), "size": size, "delta": delta}
            bounds.append(remembered("chain", inputs, partial(_chained, event, size, delta)))
            with suppress(PrivacyError):
                bounds.append(_shared_out(event, size, delta))
        if event.sampling == "fixed" and drawn_from is not None and delta >= SMALLEST_PLD_DELTA:
            inputs = {**event.as_dict(), "drawn_from": list(drawn_from), "size": size, "delta": delta}
            bounds.append(remembered("group", inputs, partial(_together, event, drawn_from, size, delta)))
    return min(bounds)


def _together(event: PrivacyEvent, drawn_from: tuple[int, int], size: int, delta: float) -> float:
    try:
        with quiet():
            return fixed_group_epsilon(event.noise_multiplier, event.count, *drawn_from, size, delta)
    except OverflowError:
        return math.inf


def _shared_out(event: PrivacyEvent, size: int, delta: float) -> float:
    """The same chain for one epsilon, at a delta too small for distributions of losses: by Renyi divergence.

    Each step multiplies what the steps before gave away by e^epsilon: delta (e^(size epsilon) - 1) / (e^epsilon - 1).
    """
    shares = delta * np.logspace(0, -100, 201)
    each = np.maximum(renyi_epsilons(event, shares.tolist()), 1e-300)
    logarithm = np.log(shares) + _log_expm1(size * each) - _log_expm1(each)
    return float(np.min(size * each, where=logarithm <= math.log(delta), initial=math.inf))


def _log_expm1(x: Array) -> Array:
    return np.asarray(x + np.log(-np.expm1(-x)), dtype=np.float64)


def _chained(event: PrivacyEvent, size: int, delta: float) -> float:
    """Along a chain of neighbours: f of the group is 1 - (1 - f)(1 - f)..., ``size`` times (there, theorem 2.14)."""
    curve = trade_off(event, delta)
    thin = slice(None, None, 5)
    curve = TradeOff(curve.epsilons[thin], curve.deltas[thin], curve.mu)
    type_1 = np.exp(np.arange(math.log(_CHAIN_SMALLEST), 0.0, _CHAIN_STEP))
    type_1 = np.append(type_1, 1.0)
    power = type_1
    for _ in range(size):
        power = curve.power(power)
    # Between two points the power is at most that at the second, and the error at least that at the first.
    before = np.append(0.0, type_1[:-1])

    def given_away(eps: float) -> float:
        return float(np.max(power - math.exp(eps) * before))

    low, high = 0.0, _MOST_EPSILON
    if given_away(high) > delta:
        return math.inf
    if given_away(low) <= delta:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if given_away(middle) > delta else (low, middle)
    return high
