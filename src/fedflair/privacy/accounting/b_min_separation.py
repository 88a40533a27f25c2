"""Cohorts by coins with b-min-separation, under banded noise: what one user's coins do to what is released.

Dong and Ganesh 2026, arXiv:2602.09338. In each round every user who was in none of the last b - 1 cohorts joins with
probability p, and the rounds' noises are rows of C^-1 Z for a lower-triangular C of b bands. What is released follows
from C X + Z (``mechanisms/correlated/strategy.py``): with the user, rows are those of noise plus, for each round s that
the user joined, the column (c_0, ..., c_(b-1)) from row s on; columns of one user never share a row. So with S the
pattern of rounds, m_S the columns' sum over the noise's scale and pi_S the chance of the pattern, released rows y are
N(m_S, 1) with chance pi_S with the user (P), N(0, 1) without (Q), and the likelihood ratio is

    L(y) = sum over S of pi_S exp(<m_S, y> - |m_S|^2 / 2).

**The worst contributions are full ones, all alike.** Let the user add vectors g_s of length at most 1, chosen knowing
all that was released before round s. Go backwards through the rounds: given the rows before t, the rows from t on are a
mixture of Gaussians with weights that no longer depend on what is to come, whose means <., .> for patterns S, S' are at
most (sum of |c_(t-s)| over S) (the same over S') a row, each sum having one term at most; where all g_s are one unit
vector, and no c is negative, they are equal to that. Kahane's inequality (1986) says that the expectation of a convex
function of sum_S w_S exp(X_S - Var X_S / 2) grows with every covariance of the Gaussians X_S; both hockey-stick
divergences are such expectations under Q. So row by row, from the last to the first, vectors can be exchanged for equal
ones. A larger column is worse, likewise: of sizes |c|, where a c is negative (``toeplitz.rounded_up``).

**Leaving the user out is told no better than putting the user in.** l(y) = log L(y) is a convex function of Gaussian
y, being the logarithm of a sum of exponentials of linear ones. By Ehrhard's inequality (Borell 2003) Phi^-1(Q(l <= x))
is concave in x, so that l is distributed like h(Z) for a convex, rising h of one Gaussian Z, with E e^h(Z) = 1. For
eps > 0 let h be -eps at z0 and eps at z1, and let g be the line through both points; s > 0 is its slope. Between them
h <= g, outside h >= g. Write R(h) = E (e^h - e^eps)_+ and A(h) = E (1 - e^(eps + h))_+, what P and Q give away. Then

    A(h) <= A(g),    R(h) = 1 - E min(e^h, e^eps) >= 1 - E e^g + R(g) - e^-eps A(g) + e^-eps A(h),

the second as E min(e^h, e^eps) is at most E min(max(e^g, e^-eps), e^eps) less e^-eps A(h). If E e^g >= 1, R(h) >= R(g)
>= A(g) >= A(h) directly: for E e^g = 1 the two in the middle are those of one Gaussian against another and equal, and
raising g raises R and lowers A. Else E e^g = theta < 1, and R(h) >= A(h) follows from 1 - theta + R(g) >= A(g), that is
from D(theta) = E min(1, theta x) - E min(theta, x) >= 0 for x = e^(eps + s Z - s^2/2) (by E f(Y) = E Y f(1/Y) for
Y = e^(s Z - s^2/2)). D is 0 at 0 and at 1 and concave between: D''(theta) = f(theta) - f(1/theta) / theta^3 for the
density f of x, whose second part is the first times theta^(-2 eps / s^2). Where h stays above -eps, A is 0. So
A(h) <= R(h): at eps >= 0, P against Q is the only direction that has to be computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]


def rate_when_free(rate: float, min_separation: int) -> float:
    """The probability p with which who is free joins, so that everybody is in a share ``rate`` of all rounds.

    In the long run a user is free in a share 1 - (b - 1) rate of the rounds, in each of which p of those join. At most
    1, for ``rate`` up to 1 / b; rounding aside.
    """
    return min(1.0, rate / (1 - (min_separation - 1) * rate))


def log_likelihood_ratio(rows: Iterable[Vector], column: Vector, rate: float) -> Vector:
    """log L, float64 [n], of n runs seen at once.

    rows: for each round float64 [n], in units of the noise's scale. column: float64 [b], b > 1, what one participation
    adds to the b rows from its round on, in the same unit. rate: share of all rounds that a user is in; before the
    first round everybody was as at any later time, with rounds before the first that added nothing.

    Kept are logarithms, which hold contributions of whatever size: of how likely the rows so far are where the user is
    free now, and where it was drawn 0, ... b - 1 rounds ago.
    """
    b, p = len(column), rate_when_free(rate, len(column))
    rows = iter(rows)
    first = next(rows)
    joins, stays = _log(p), _log(1 - p)
    free = np.full(len(first), _log(1 - (b - 1) * rate))
    # A ring: who is drawn in round s has place s mod b, from which it is free again when that is the next one's.
    drawn = np.full((b, len(first)), _log(rate))
    steps = np.zeros(b)
    round_ = 0
    row: Vector | None = first
    while row is not None:
        drawn[round_ % b] = free + joins
        ages = (round_ - np.arange(b)) % b
        # Who was drawn before the first round adds nothing.
        np.multiply(column[ages], ages <= round_, out=steps)
        drawn += np.outer(steps, row)
        drawn -= (steps**2 / 2)[:, None]
        round_ += 1
        free = np.logaddexp(free + stays, drawn[round_ % b])
        row = next(rows, None)
    drawn[round_ % b] = free
    return np.asarray(np.logaddexp.reduce(drawn, axis=0))


def _log(chance: float) -> float:
    return math.log(chance) if chance > 0 else -math.inf
