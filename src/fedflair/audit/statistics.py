"""What an audit's numbers say: which guesses of coins refute which epsilon, and chances of normal numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import binom, chi2, norm

Vector = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Ways to guess, (share of "in", share of "out"): everybody; the clearest; and those who stand out, where most canaries
# were never drawn. The level of a test is paid by all of them.
_WAYS = ((0.5, 0.5), (0.1, 0.1), (0.05, 0.0), (0.01, 0.0))


def lower_bound(scores: Vector, included: Bools, delta: float, level: float) -> float:
    """A lower bound on epsilon that is wrong with probability ``level``, whatever the canaries' scores depend on."""
    guesses = _right_guesses(scores, included)

    def refuted(epsilon: float) -> bool:
        return any(
            refutes(epsilon, delta, len(scores), number, right, level / len(guesses)) for number, right in guesses
        )

    return largest(refuted, 0.0, 64.0, steps=30)


def refutes(epsilon: float, delta: float, num_canaries: int, num_guesses: int, num_right: int, level: float) -> bool:
    """Whether so many right guesses or more have a chance below ``level`` in an (epsilon, delta)-private run.

    Each of ``num_canaries`` was in or out by a fair coin, and whoever saw what the run released guessed ``num_guesses``
    of the coins. After Mahloujifar, Melis and Chaudhuri 2024, Auditing f-Differential Privacy in One Run,
    arXiv:2410.22235. Let p_j be the chance of j right guesses of c, on m coins. Turning one canary's coin makes a right
    guess a wrong one and changes nothing else. So, where P(S) <= g(P'(S)) is promised each canary and g is concave,

        (1/m) sum_{j >= a} j p_j  <=  g( (1/m) sum_{j >= a - 1} (c - j) p_j )   for each a.

    A chance of ``level`` for v right guesses or more forces a least chance on v - 1, then on v - 2, and so on down;
    where all of them come to more than 1, the promise does not go with it.
    """
    grow, shrink = math.exp(epsilon), math.exp(-epsilon)
    right, wrong = level * num_right / num_canaries, level * (num_guesses - num_right) / num_canaries
    for j in range(num_right - 1, -1, -1):
        # The inverse of g: the promise of a set of outcomes, and of its complement.
        raised = max(wrong, (right - delta) * shrink, 1 - delta - (1 - right) * grow)
        right += j / (num_guesses - j) * (raised - wrong)
        wrong = raised
        if right + wrong > num_guesses / num_canaries:
            return True
    return False


def _right_guesses(scores: Vector, included: Bools) -> list[tuple[int, int]]:
    """(number of guesses, of right ones) in each of the ways: "in" for the highest scores, "out" for the lowest."""
    order = np.argsort(scores, kind="stable")
    found = []
    for share_in, share_out in _WAYS:
        num_in, num_out = max(1, int(len(scores) * share_in)), int(len(scores) * share_out)
        right = int(included[order[-num_in:]].sum()) + int((~included[order[:num_out]]).sum())
        found.append((num_in + num_out, right))
    return found


def most_right(advantage: float, num_canaries: int, level: float) -> int:
    """What the number of right guesses exceeds with probability ``level``, at most, where they are independent.

    advantage: total variation between what is seen with a canary and without it: (1 + it) / 2 of guesses can be right.
    """
    return int(binom.isf(level, num_canaries, min((1 + advantage) / 2, 1.0)))


def largest(holds: Callable[[float], bool], low: float, high: float, steps: int) -> float:
    """The largest number in [low, high] for which ``holds``, true below and false above; ``low`` if it never is."""
    if holds(high):
        return high
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def normal_tail(level: float, num_tests: int = 1) -> float:
    """How many standard deviations one of ``num_tests`` normal numbers exceeds with probability ``level``, at most."""
    return float(norm.isf(level / num_tests))


def least_square(level: float, size: int, num_tests: int = 1) -> float:
    """What the mean square of ``size`` standard normals is below in one of ``num_tests`` with probability ``level``."""
    return float(chi2.ppf(level / num_tests, size) / size)


def as_normal(laplace: Vector) -> Vector:
    """Numbers of the Laplace distribution of scale 1 as the standard normal numbers of the same quantiles."""
    return np.asarray(np.sign(laplace) * norm.isf(0.5 * np.exp(-np.abs(laplace))))


def largest_correlation(rows: Vector) -> tuple[float, int, int]:
    """(largest absolute correlation of two rows, their positions)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        # A row without any noise has no correlation.
        found = np.nan_to_num(np.abs(np.corrcoef(rows)))
    np.fill_diagonal(found, 0.0)
    first, second = np.unravel_index(int(np.argmax(found)), found.shape)
    return float(found[first, second]), int(first), int(second)


def largest_repetition(rows: Vector) -> tuple[float, int]:
    """(mean of an entry times the one a lag further on in its row, around, in size; the lag where it is largest)."""
    spectrum = np.fft.rfft(rows, axis=1)
    products = np.fft.irfft((spectrum * spectrum.conj()).sum(axis=0), rows.shape[1])[1 : rows.shape[1] // 2 + 1]
    lag = int(np.argmax(np.abs(products)))
    return float(abs(products[lag]) / rows.size), lag + 1
