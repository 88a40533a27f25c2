"""What the guesses of one audit say of its epsilon: an estimate with its error, and two lower bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.audit.statistics import Bools, largest, lower_bound, most_right, normal_tail
from fedflair.privacy.accounting.accountants import coins_of, epsilon
from fedflair.privacy.accounting.cache import unremembered
from fedflair.privacy.accounting.events import Accountant, PrivacyEvent, without_sampling
from fedflair.privacy.accounting.monte_carlo import estimated_epsilon
from fedflair.privacy.accounting.replicas import make_tilt

Vector = npt.NDArray[np.float64]

# Each of the three is wrong, or raises a false alarm, with this probability at most.
LEVEL = 0.003

_STRONGEST = 64.0


@dataclass(frozen=True)
class Game:
    """What somebody has seen of each canary, and what it should look like.

    event: as accounted, and ``seen`` as far as it is visible here; delta, accountant: of the epsilon.
    scores: the more, the likelier the coin is heads; above 0 where it is likelier than not, if all is as accounted.
    sums: numbers whose mean is ``expected`` larger for heads than for tails, if all is as accounted.
    noise: standard deviation of the noise as seen where nobody contributes, over what is accounted.
    """

    event: PrivacyEvent
    seen: PrivacyEvent
    delta: float
    accountant: Accountant
    heads: Bools
    scores: Vector
    sums: Vector
    expected: float
    noise: float


@dataclass(frozen=True)
class Measured:
    """Epsilon as measured; infinite where no float holds it.

    estimate: of a path that is as accounted but for its ratio of contributions to noise, for which the measured ratio
        is taken; estimate_range: the same at the ends of the ratio's 99.4 % interval.
    conditional_lower_bound: at least this with 99.7 % confidence, if the path is as accounted but for that ratio, and
        what is seen of one canary so independent of the others.
    lower_bound: at least this with 99.7 % confidence, whatever the path does.
    findings: what is wrong, each one line.
    """

    estimate: float
    estimate_range: tuple[float, float]
    conditional_lower_bound: float
    lower_bound: float
    findings: tuple[str, ...]


def measured(game: Game, accounted: float) -> Measured:
    """What the guesses say, beside the epsilon that is accounted."""
    ratio, error = _signal(game)
    low, high = (max(ratio + side * normal_tail(LEVEL) * error, 0.0) for side in (-1, 1))
    lowest, strength = _epsilon(game, low), _refuted_signal(game)
    bound, free = _epsilon(game, strength), lower_bound(game.scores, game.heads, game.delta, LEVEL)
    findings = []
    if low > 1:
        findings.append(
            f"contributions stand out of the noise {ratio:.4g} times (at least {low:.4g} times) as much as accounted: "
            f"an epsilon of {lowest:.4g} or more, accounted as {accounted:.4g}"
        )
    if strength > 1:
        findings.append(
            f"the canaries' coins are guessed right too often: epsilon is at least {bound:.4g} with 99.7 % confidence, "
            f"accounted as {accounted:.4g}"
        )
    if free > accounted:
        findings.append(f"epsilon is at least {free:.4g} with 99.7 % confidence, accounted as {accounted:.4g}")
    return Measured(
        estimate=_epsilon(game, ratio),
        estimate_range=(lowest, _epsilon(game, high)),
        conditional_lower_bound=bound,
        lower_bound=free,
        findings=tuple(findings),
    )


def _signal(game: Game) -> tuple[float, float]:
    """(contributions over noise, relative to what is accounted; standard error of it)."""
    here, there = game.sums[game.heads], game.sums[~game.heads]
    distance = float(here.mean() - there.mean()) / game.expected
    error = math.sqrt(here.var(ddof=1) / len(here) + there.var(ddof=1) / len(there)) / game.expected
    # Where there is no noise at all, everything can be told.
    noise = max(game.noise, 1 / _STRONGEST)
    return distance / noise, error / noise


def _epsilon(game: Game, signal: float) -> float:
    """Epsilon of the accounted event with contributions ``signal`` times as large beside its noise."""
    if signal <= 0.01:
        return 0.0
    stronger = replace(game.event, noise_multiplier=game.event.noise_multiplier / min(signal, _STRONGEST))
    if stronger.column:
        return min(estimated_epsilon(coins_of(stronger), game.delta), epsilon(without_sampling(stronger), game.delta))
    # Of this audit's luck alone: nobody asks for it again.
    with unremembered():
        return epsilon(stronger, game.delta, game.accountant)


def _refuted_signal(game: Game) -> float:
    """The largest ratio of contributions to noise, over what is accounted, that so many right guesses refute; or 0."""
    right = int(((game.scores > 0) == game.heads).sum())

    def refuted(signal: float) -> bool:
        return right > most_right(advantage(game.seen, signal), len(game.heads), LEVEL)

    low = 1 / _STRONGEST
    if not refuted(low):
        return 0.0
    high = 2 * low
    while high < _STRONGEST and refuted(high):
        low, high = high, 2 * high
    return largest(refuted, low, high, steps=8)


# Every audit of an event climbs the same ladder of signals.
@lru_cache(maxsize=1024)
def advantage(event: PrivacyEvent, signal: float) -> float:
    """Total variation, at most, between what is seen of a canary whose coin is heads and of one whose coin is tails."""
    if event.column:
        return _advantage_apart(replace(event, noise_multiplier=event.noise_multiplier / signal))
    import dp_accounting
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    multiplier, relation = event.noise_multiplier / signal, NeighboringRelation.ADD_OR_REMOVE_ONE
    if event.neighbouring == "replace_one":
        if event.noise == "gaussian":
            relation = NeighboringRelation.REPLACE_ONE
        else:
            multiplier /= 2
    kind = dp_accounting.GaussianDpEvent if event.noise == "gaussian" else dp_accounting.LaplaceDpEvent
    release: Any = kind(multiplier)
    if event.sampling != "none" and event.sampling_rate < 1:
        # One canary is drawn with this probability whatever the size of cohorts is.
        release = dp_accounting.PoissonSampledDpEvent(event.sampling_rate, release)
    accountant = PLDAccountant(relation, value_discretization_interval=min(1e-2, math.sqrt(1e-4 / event.count)))
    with np.errstate(all="ignore"):
        accountant.compose(dp_accounting.SelfComposedDpEvent(release, event.count))
        return float(min(accountant.get_delta(0.0), 1.0))


def _advantage_apart(event: PrivacyEvent) -> float:
    """The same under b-min-separation, by the second moment: E |L - 1| is at most the root of E (L - 1)^2."""
    tilt = make_tilt(np.array(event.column) / event.noise_multiplier, event.sampling_rate, event.count, 2)
    if tilt is None or tilt.log_moment > 1:
        return 1.0
    return min(1.0, math.sqrt(math.expm1(tilt.log_moment)) / 2)
