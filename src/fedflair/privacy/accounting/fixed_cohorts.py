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
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def fixed_cohort_losses(sigma: float, rate: float, interval: float) -> Any:
    """The privacy loss distribution (dp-accounting's) of one sum over a cohort of fixed size, rounded upwards.

    sigma: the noise over the distance between neighbouring sums, which is twice the clipping bound. rate: n / N < 1.
    interval: what losses are multiples of. Between them the bound is interpolated, which lies above it as it is convex
    in alpha (Doroshenko et al. 2022, arXiv:2207.04380).
    """
    from dp_accounting.pld.pld_pmf import DensePLDPmf
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

    removed = GaussianPrivacyLoss(sigma, sampling_prob=rate, adjacency_type=AdjacencyType.REMOVE)
    num_losses = max(1, math.ceil(removed.connect_dots_bounds().epsilon_upper / interval))
    deltas = removed.get_delta_for_epsilon(np.arange(num_losses + 1) * interval)
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
