"""Cohorts of a fixed size, drawn without replacement: the privacy loss distribution of one noisy sum over one.

Neighbours are two lists of N clients that differ in one of them (``replace_one``), and n of the N are drawn uniformly.
Two sums over the same cohort, or over cohorts that differ in one client, are then at most twice the clipping bound
apart: the Gaussians P and Q of that distance dominate both. With gamma = n / N and R = (1 - gamma) Q + gamma P, what
the sampled sum gives away at e^eps = alpha is at most

    H_alpha(R || Q) for alpha >= 1,    H_alpha(Q || R) for alpha < 1

(Zhu, Dong and Wang 2022, arXiv:2106.08567, theorem 11). Why: with mu0 the sum's distribution given that the client is
not drawn, mu1 and mu1' given that it is, before and after, the sampled sums are (1 - gamma) mu0 + gamma mu1 and
(1 - gamma) mu0 + gamma mu1'. For alpha' = 1 + gamma (alpha - 1) >= 1 and beta = alpha' / alpha, advanced joint
convexity (Balle, Barthe and Gaboardi 2018, arXiv:1807.01647, theorem 2) gives

    H_alpha' = gamma H_alpha(mu1 || (1 - beta) mu0 + beta mu1')
            <= gamma ((1 - beta) H_alpha(mu1 || mu0) + beta H_alpha(mu1 || mu1')) <= gamma H_alpha(P || Q),

the first term as each cohort with the client is paired with those that have somebody else in its place, the second as
the cohorts are the same; and gamma H_alpha(P || Q) is H_alpha'(R || Q). Below 1 it follows with the two lists
exchanged, as H_alpha(A || B) = 1 - alpha + alpha H_{1/alpha}(B || A). Neither R against Q nor Q against R alone bounds
a composition, which needs a bound at every alpha.

Lists that differ in k clients: j of them are drawn with the probability h_j of a hypergeometric number. With mu0 the
sum's distribution given that none is drawn, mu1 and mu1' given that some are, and gamma = 1 - h_0, the same lines hold
up to the last: a cohort with j of them is paired with those that have j others in their places, and with the same one
of the other list; either sum is 2 j clipping bounds away at most. So H_alpha(mu1 || mu0) and H_alpha(mu1 || mu1') are
at most the sum over j >= 1 of h_j / gamma H_alpha(P_j || Q), by joint convexity, P_j being a Gaussian j times as far
away; and gamma H_alpha(P_j || Q) is H_alpha'((1 - gamma) Q + gamma P_j || Q). With k = 1 it is the bound above.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

# Of a group: the share of delta that cohorts with more of it than are looked at may cost, and of epsilon that the grid
# may; losses that protect nobody, and are taken for infinite; and what bounds the time, to a second or two.
_TAIL_SHARE = 1e-3
_TOLERANCE = 1e-3
_LARGEST_LOSS = 1000.0
_MOST_TERMS = 4e6


def fixed_cohort_losses(sigma: float, rate: float, interval: float) -> Any:
    """The privacy loss distribution (dp-accounting's) of one sum over a cohort of fixed size, rounded upwards.

    sigma: the noise over the distance between neighbouring sums, which is twice the clipping bound. rate: n / N < 1.
    interval: what losses are multiples of. Between them the bound is interpolated, which lies above it as it is convex
    in alpha (Doroshenko et al. 2022, arXiv:2207.04380).
    """
    removed = _drawn_or_not(sigma, rate)
    num_losses = max(1, math.ceil(removed.connect_dots_bounds().epsilon_upper / interval))
    return _both_signs(removed.get_delta_for_epsilon(np.arange(num_losses + 1) * interval), interval)


def fixed_group_epsilon(
    noise_multiplier: float, count: int, cohort_size: int, population: int, size: int, delta: float
) -> float:
    """Epsilon at ``delta`` for ``size`` clients replaced together, after ``count`` sums; inf where nobody is protected.

    noise_multiplier: the noise over the clipping bound. size: at most the population.
    """
    missed = _TAIL_SHARE * delta / count
    # A first guess on a grid that is too coarse by a few, which says how fine it has to be.
    interval, least = min(math.sqrt(10 / count), 0.1), math.inf
    for _ in range(2):
        losses = fixed_group_losses(noise_multiplier, cohort_size, population, size, interval, missed)
        found = float(losses.self_compose(count).get_epsilon_for_delta(delta))
        if not math.isfinite(found):
            break
        least = min(least, found)
        interval = min(interval, math.sqrt(2 * _TOLERANCE * found / count))
    return least


def fixed_group_losses(
    noise_multiplier: float, cohort_size: int, population: int, size: int, interval: float, missed: float
) -> Any:
    """As ``fixed_cohort_losses``, where ``size`` clients are replaced; the grid is coarser where it would be too large.

    missed: how likely at most a cohort has so many of them that it is taken to tell everything.
    """
    from scipy.stats import hypergeom

    number = hypergeom(population, size, cohort_size)
    most = max(1, int(number.isf(missed)))
    chances = np.asarray(number.pmf(np.arange(1, most + 1)), dtype=np.float64)
    more = float(number.sf(most))
    some = float(chances.sum()) + more
    each = [_drawn_or_not(noise_multiplier / (2 * drawn), min(some, 1.0)) for drawn in range(1, most + 1)]
    largest = min(_LARGEST_LOSS, max(one.connect_dots_bounds().epsilon_upper for one in each))
    interval = max(interval, largest * most / _MOST_TERMS)
    losses = np.arange(max(1, math.ceil(largest / interval)) + 1) * interval
    deltas = sum(chance / some * one.get_delta_for_epsilon(losses) for chance, one in zip(chances, each))
    return _both_signs(np.asarray(deltas) + more, interval)


def _drawn_or_not(sigma: float, rate: float) -> Any:
    """(1 - rate) Q + rate P against Q, for P and Q as far apart as noise of 1 / ``sigma`` of the distance has them."""
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

    return GaussianPrivacyLoss(sigma, sampling_prob=rate, adjacency_type=AdjacencyType.REMOVE)


def _both_signs(deltas: npt.NDArray[np.float64], interval: float) -> Any:
    """What gives away ``deltas`` at epsilons of 0, ``interval``, ..., and the same with the two lists exchanged."""
    from dp_accounting.pld.pld_pmf import DensePLDPmf
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    num_losses = len(deltas) - 1
    deltas = np.minimum.accumulate(np.clip(deltas, 0.0, 1.0))
    falls = -np.diff(deltas)
    above = np.append(falls[:-1] * math.exp(interval) - falls[1:], falls[-1] * math.exp(interval))
    above = np.maximum(above / math.expm1(interval), 0.0)
    # The bound is the same with the lists exchanged: each loss comes with its opposite, which is e^-loss as likely.
    below = above * np.exp(-interval * np.arange(1, num_losses + 1))
    at_infinity = float(deltas[-1])
    at_zero = max(0.0, 1 - at_infinity - float(above.sum()) - float(below.sum()))
    losses = np.concatenate([below[::-1], [at_zero], above])
    return PrivacyLossDistribution(DensePLDPmf(interval, -num_losses, losses, at_infinity, True))
