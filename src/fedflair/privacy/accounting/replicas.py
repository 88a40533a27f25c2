"""Whole moments of the likelihood ratio under b-min-separation, and runs in which it is large.

With L of ``b_min_separation.py``, E_Q L^a is a sum over a patterns of their chances, as of a users with coins of their
own, times exp(sum over pairs of <m_S, m_S'>), which is a product over rows. All that counts before a row is how many of
the a were drawn 1, 2, ... b - 1 rounds ago: (a + b - 1 choose a) states, over whose paths the moment is a sum that is
taken backwards, a round at a time. Runs with density L^a / E_Q L^a over Q are noise around the sum of the columns of a
users whose patterns are such a path, drawn with its share of the sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedflair.privacy.accounting.b_min_separation import rate_when_free

Vector = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MOST_STATES = 60_000
# Rounds so far from the end that a further one changes no sum's proportion to another by more than this are all alike.
_ALIKE = 1e-13
# Numbers that are kept of the rounds nearer to the end, 8 bytes each.
_MOST_KEPT = 3e7
# Logarithm of what rows of one participation may multiply a sum by, where numbers go to e^700.
_LARGEST = 300.0


@dataclass(frozen=True)
class Tilt:
    """Runs of Q, weighted with a power of the likelihood ratio.

    order: a. log_moment: log E_Q L^a. column, num_rounds: of the runs.
    ages: int64 [states, b - 1], how many of the a users were drawn 1, ... b - 1 rounds ago.
    after: int64 [states, a + 1], the state after a round in which so many are drawn; 0 where there are not so many.
    chance: float64 [states, a + 1], of that; 0 likewise.
    start: float64 [states], of each state and those before it, before round 0.
    sums: float64 [states] each, over what is to come after a round; sum_after: int64 [T], which of them, of each round.
    """

    order: int
    log_moment: float
    column: Vector
    num_rounds: int
    ages: Integers
    after: Integers
    chance: Vector
    start: Vector
    sums: tuple[Vector, ...]
    sum_after: Integers


def num_states(order: int, min_separation: int) -> int:
    return math.comb(order + min_separation - 1, order)


def make_tilt(column: Vector, rate: float, num_rounds: int, order: int) -> Tilt | None:
    """The tilt of whole ``order`` > 1; None where it takes more numbers, or larger ones, than are at hand.

    column: float64 [b], b > 1, over the noise's scale; it and ``rate`` are as of ``log_likelihood_ratio``.
    """
    b = len(column)
    largest = order**2 * float(column @ column) / 2
    if num_states(order, b) > MOST_STATES or largest > _LARGEST:
        return None
    ages, after = _states(order, b - 1)
    chance = _chances(ages, order, rate_when_free(rate, b))
    usual = chance * np.exp(_rows(ages, order, column)[1])
    ahead = np.ones(len(ages))
    sums, sum_after = [ahead], np.zeros(num_rounds, dtype=np.int64)
    log_scale, last_scale, alike = 0.0, 0.0, False
    for round_ in range(num_rounds - 1, -1, -1):
        sum_after[round_] = len(sums) - 1
        early = round_ < b - 1
        if alike and not early:
            log_scale += last_scale
            continue
        weights = usual if not early else chance * np.exp(_rows(ages, order, _so_far(column, round_))[1])
        here = (weights * ahead[after]).sum(axis=1)
        scale = float(here.max())
        here /= scale
        last_scale = math.log(scale)
        log_scale += last_scale
        alike = not early and bool(np.all(np.abs(here - ahead) <= _ALIKE * ahead))
        ahead = here
        sums.append(ahead)
        if len(sums) * len(ages) > _MOST_KEPT:
            return None
    begun = np.exp(_log_before(ages, order, rate)) * ahead
    return Tilt(
        order=order,
        log_moment=log_scale + math.log(begun.sum()),
        column=column,
        num_rounds=num_rounds,
        ages=ages,
        after=after,
        chance=chance,
        start=np.cumsum(begun) / begun.sum(),
        sums=tuple(sums),
        sum_after=sum_after,
    )


def tilted_rows(tilt: Tilt, num_runs: int, random: np.random.Generator) -> Iterator[Vector]:
    """The rows of so many runs, float64 [n] a round, in units of the noise's scale."""
    state = np.minimum(np.searchsorted(tilt.start, random.random(num_runs)), len(tilt.start) - 1)
    early = len(tilt.column) - 1
    known, means, weights, below = -1, np.empty(0), np.empty(0), np.empty(0)
    for round_ in range(tilt.num_rounds):
        if round_ <= early:
            means, exponents = _rows(tilt.ages, tilt.order, _so_far(tilt.column, round_))
            weights = tilt.chance * np.exp(exponents)
        if round_ <= early or tilt.sum_after[round_] != known:
            known = int(tilt.sum_after[round_])
            below = np.cumsum(weights * tilt.sums[known][tilt.after], axis=1)
            # What a number is too small for never happens: from there, nothing is drawn.
            below /= np.where(below[:, -1:] > 0, below[:, -1:], 1.0)
        coins = random.random(num_runs)
        drawn = np.zeros(num_runs, dtype=np.int64)
        some = np.flatnonzero(coins > below[state, 0])
        drawn[some] = (coins[some, None] > below[state[some], :-1]).sum(axis=1)
        yield means[state, drawn] + random.standard_normal(num_runs)
        state = tilt.after[state, drawn]


def _so_far(column: Vector, round_: int) -> Vector:
    """What participations add to the row of ``round_``: those before the first round add nothing."""
    return np.where(np.arange(len(column)) <= round_, column, 0.0)


@lru_cache(maxsize=32)
def _states(order: int, num_ages: int) -> tuple[Integers, Integers]:
    """(ages, after) of a ``Tilt``, in the order of words of a letter an age.

    As much as a calibration asks for again and again, with other noise.
    """
    ages = np.zeros((1, 0), dtype=np.int64)
    for _ in range(num_ages):
        ways = order - ages.sum(axis=1) + 1
        before = np.repeat(np.cumsum(ways) - ways, ways)
        ages = np.column_stack([np.repeat(ages, ways, axis=0), np.arange(len(before)) - before])
    words, free = _words(ages), order - ages.sum(axis=1)
    after = np.zeros((len(ages), order + 1), dtype=np.int64)
    for drawn in range(order + 1):
        can = np.flatnonzero(free >= drawn)
        after[can, drawn] = np.searchsorted(words, _words(np.column_stack([np.full(len(can), drawn), ages[can, :-1]])))
    return ages, after


def _words(ages: Integers) -> npt.NDArray[np.bytes_]:
    return np.ascontiguousarray(ages, dtype=np.uint8).view(f"S{ages.shape[1]}").ravel()


def _chances(ages: Integers, order: int, p: float) -> Vector:
    """``chance`` of a ``Tilt``, where who is free is drawn with probability p."""
    from scipy.stats import binom

    # Of each number of users who are free, of how many are drawn; none where there are not so many.
    by_free = binom.pmf(np.arange(order + 1), np.arange(order + 1)[:, None], p)
    return np.asarray(by_free[order - ages.sum(axis=1)], dtype=np.float64)


def _rows(ages: Integers, order: int, column: Vector) -> tuple[Vector, Vector]:
    """(mean of a row, logarithm of what it multiplies a path's sum by), by state and by how many are drawn."""
    drawn = np.arange(order + 1)
    means = (ages @ column[1:])[:, None] + drawn * column[0]
    squares = (ages @ column[1:] ** 2)[:, None] + drawn * column[0] ** 2
    return means, (means**2 - squares) / 2


def _log_before(ages: Integers, order: int, rate: float) -> Vector:
    """Log of each state's chance before round 0: every user was drawn k rounds ago with chance ``rate``."""
    from scipy.special import gammaln, xlogy

    free = order - ages.sum(axis=1)
    always = max(0.0, 1 - ages.shape[1] * rate)
    ways = gammaln(order + 1) - gammaln(ages + 1).sum(axis=1) - gammaln(free + 1)
    return np.asarray(ways + xlogy(ages.sum(axis=1), rate) + xlogy(free, always), dtype=np.float64)
