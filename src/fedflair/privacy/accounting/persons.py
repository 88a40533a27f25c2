"""What a run over artificial users promises to a person, whose images are spread over many of them.

A person with k images is in up to k artificial users. Zero out their contributions together: in a round, j of them are
in the cohort, j being binomial with the sampling rate, and the sum loses up to j times the clipping bound. That is the
mixture of Gaussians of Choquette-Choo et al. 2023 (arXiv:2310.15526), composed over the rounds.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt

from fedflair.privacy.accounting.accountants import SMALLEST_PLD_DELTA, epsilon, quiet
from fedflair.privacy.accounting.cache import remembered
from fedflair.privacy.accounting.events import PrivacyEvent

# Shares of delta, and of epsilon, that may be given away for a smaller computation; both err upwards.
_TAIL_SHARE = 1e-3
_TOLERANCE = 1e-3
# Losses of one round times participations that are kept apart: a second or two.
_MAX_TERMS = 300_000
_MAX_LOSSES = 20_000
# Beyond it one client alone has no protection, and a person is not worth seconds.
_NO_PROTECTION = 1000.0
# Of Gaussian noise that goes further, the library keeps no account.
_REACH = 10.0


def person_epsilon(event: PrivacyEvent, num_groups: int, delta: float) -> float | None:
    """An upper bound on epsilon for somebody who is in ``num_groups`` of the clients; None where no accountant has one.

    event: what the run releases, with clients that are sampled independently of each other in every round.
    """
    if event.noise != "gaussian" or event.neighbouring != "zero_out" or event.column:
        return None
    if num_groups <= 1 or event.noise_multiplier == 0 or event.count == 0 or event.sampling_rate == 0:
        return epsilon(event, delta)
    everybody = _in_every_round(event, num_groups, delta)
    if event.sampling == "none" or event.sampling_rate >= 1 or delta < SMALLEST_PLD_DELTA:
        return everybody
    if epsilon(event, delta) > _NO_PROTECTION:
        return everybody
    inputs = {**event.as_dict(), "num_groups": num_groups, "delta": delta}
    return min(everybody, remembered("person", inputs, partial(_mixture, event, num_groups, delta)))


def _in_every_round(event: PrivacyEvent, num_groups: int, delta: float) -> float:
    """The bound that sampling does not help with: every cohort has all of the person's clients."""
    import dp_accounting

    sigma = event.noise_multiplier / num_groups / math.sqrt(event.count)
    try:
        with quiet():
            return float(dp_accounting.get_epsilon_gaussian(sigma, delta))
    except (OverflowError, ValueError):
        return math.inf


def _mixture(event: PrivacyEvent, num_groups: int, delta: float) -> float:
    chances, missed = participations(num_groups, event.sampling_rate, _TAIL_SHARE * delta / event.count)
    left = delta - event.count * missed
    # A first guess on a grid that is too coarse by a few, which says how fine it has to be.
    guess = _compose(event, chances, left, math.sqrt(10 / event.count))
    if not math.isfinite(guess):
        return math.inf
    return min(guess, _compose(event, chances, left, math.sqrt(2 * _TOLERANCE * guess / event.count)))


def participations(num_groups: int, rate: float, most_missed: float) -> tuple[npt.NDArray[np.float64], float]:
    """(probabilities of 0, 1, ... participations in a round given that there are no more, probability of more).

    The second is at most ``most_missed``. Up to such rounds, by joint convexity, what is left out costs its probability
    in delta a round, in both directions.
    """
    from scipy.stats import binom

    most = int(binom.isf(most_missed, num_groups, rate))
    chances = np.asarray(binom.pmf(np.arange(most + 1), num_groups, rate), dtype=np.float64)
    return chances / chances.sum(), float(binom.sf(most, num_groups, rate))


def _compose(event: PrivacyEvent, chances: npt.NDArray[np.float64], delta: float, interval: float) -> float:
    from dp_accounting import NeighboringRelation
    from dp_accounting.dp_event import MixtureOfGaussiansDpEvent, SelfComposedDpEvent
    from dp_accounting.pld import PLDAccountant

    most, sigma = len(chances) - 1, event.noise_multiplier
    largest = (most / sigma) ** 2 / 2 + _REACH * most / sigma
    one_round = MixtureOfGaussiansDpEvent(sigma, list(range(most + 1)), chances.tolist())
    coarsest = largest / min(_MAX_LOSSES, _MAX_TERMS / (most + 1))
    accountant = PLDAccountant(
        NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=max(interval, coarsest)
    )
    try:
        with quiet():
            accountant.compose(SelfComposedDpEvent(one_round, event.count))
            return float(accountant.get_epsilon(delta))
    except (OverflowError, ValueError):
        return math.inf
