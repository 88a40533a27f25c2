"""From events to epsilon, over dp-accounting; results are cached on disk by their inputs.

Everything here is about one quantity, the noise multiplier: the noise's scale (standard deviation of Gaussian noise,
scale parameter of Laplace noise) over the bound on one client's contribution to the sum.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import numpy as np

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.cache import remembered
from fedflair.privacy.accounting.events import (
    Accountant,
    AskedAccountant,
    PrivacyEvent,
    in_turns,
    is_sampled,
    neighbour_distance,
    without_sampling,
)
from fedflair.privacy.accounting.fixed_cohorts import fixed_cohort_losses
from fedflair.privacy.accounting.monte_carlo import Coins, moment_epsilon, monte_carlo_epsilon

# Relative error of an epsilon that is shown.
TOLERANCE = 1e-5
# What bounds time and memory, by a coarser grid where an answer would take more, which still errs upwards: points of a
# whole composition, of one release, and of the largest loss of one Laplace release.
MAX_GRID_POINTS = 2.5e5
MAX_LOSS_POINTS = 1e6
_MAX_LAPLACE_POINTS = 5e4
_LAPLACE_STEPS = 300
# Gaussian noise that goes further is less likely than e^-50: the library leaves it out.
_REACH = 10.0

# Below it the rounding of PLD's Fourier transforms is no longer small beside delta: against the exact answer for 5,000
# Gaussian releases, epsilon was 2e-5 too high at 1e-10, 5e-5 too low at 1e-11, and infinite or far off from 1e-14 on.
SMALLEST_PLD_DELTA = 1e-10
# Noise over the bound on one contribution, beyond which rdp looks no further.
_MOST_NOISE = 1e6


def resolve_accountant(event: PrivacyEvent, asked: AskedAccountant, delta: float) -> Accountant:
    """The accountant that bounds the event: ``asked``, or for ``auto`` PLD where its arithmetic is exact, else Renyi.

    Raises PrivacyError, with what to do instead, where that one has no proven bound for the event.
    """
    if event.sampling == "b_min_separation":
        if asked == "pld" or event.noise != "gaussian" or event.neighbouring != "zero_out":
            raise PrivacyError(
                "accountant: b_min_separation cohorts are accounted for gaussian noise and zero_out, by monte_carlo or "
                "rdp; use auto"
            )
        return "rdp" if asked == "rdp" else "monte_carlo"
    if asked == "monte_carlo":
        raise PrivacyError("accountant: monte_carlo is of b_min_separation cohorts only; use auto")
    if event.sampling == "fixed" and event.noise != "gaussian":
        raise PrivacyError("cohort_sampling: laplace noise has no accountant for fixed cohorts; use poisson")
    sampled_other = is_sampled(event) and event.sampling != "fixed"
    sampled_other = sampled_other and (event.neighbouring == "replace_one" or event.noise == "laplace")
    if sampled_other and event.neighbouring == "replace_one" and event.noise == "laplace":
        raise PrivacyError("neighbouring: sampled laplace noise is accounted for zero_out only; use zero_out")
    if asked == "rdp" and sampled_other:
        raise PrivacyError(f"accountant: rdp has no bound for {event.noise}, {event.neighbouring}; use auto")
    exact = delta >= SMALLEST_PLD_DELTA or (event.noise == "gaussian" and not is_sampled(event))
    if asked == "rdp" or exact:
        return "rdp" if asked == "rdp" else "pld"
    if sampled_other:
        raise PrivacyError(
            f"delta: {delta:g} is below {SMALLEST_PLD_DELTA:g}, where pld is not exact, and rdp has no bound for "
            f"{event.noise}, {event.neighbouring}; raise delta"
        )
    if asked == "pld":
        raise PrivacyError(
            f"accountant: pld is not exact at a delta of {delta:g}, below {SMALLEST_PLD_DELTA:g}; use auto or rdp"
        )
    return "rdp"


def epsilon(event: PrivacyEvent, delta: float, accountant: AskedAccountant = "auto") -> float:
    """The smallest epsilon the accountant can prove at ``delta`` in (0, 1); inf where there is no noise.

    An upper bound: discretisation rounds up. Raises PrivacyError for an event that no accountant can bound.
    """
    if event.count == 0 or event.sampling_rate == 0:
        return 0.0
    if event.noise_multiplier == 0:
        return math.inf
    chosen = resolve_accountant(event, accountant, delta)
    compute = partial(compute_epsilon, event, delta, chosen)
    return remembered("epsilon", {**event.as_dict(), "delta": delta, "accountant": chosen}, compute)


def epsilon_anew(event: PrivacyEvent, delta: float, accountant: AskedAccountant) -> float:
    """As ``epsilon``, computed whatever the cache says, which then says the same."""
    chosen = resolve_accountant(event, accountant, delta)
    inputs = {**event.as_dict(), "delta": delta, "accountant": chosen}
    return remembered("epsilon", inputs, partial(compute_epsilon, event, delta, chosen), anew=True)


def accounted_round(num_rounds: int, total_rounds: int) -> int:
    """The first round at or after ``num_rounds`` of a grid with steps of an eighth, which ends at ``total_rounds``.

    Epsilon after that many rounds bounds epsilon after ``num_rounds``, and a run of thousands of rounds needs it at a
    few dozen places only.
    """
    reached = 1
    while reached < num_rounds:
        reached = max(reached + 1, math.ceil(reached * 1.125))
    return min(reached, max(total_rounds, num_rounds))


def compute_epsilon(
    event: PrivacyEvent, delta: float, accountant: Accountant, tolerance: float = TOLERANCE, rough: float = 0.0
) -> float:
    import dp_accounting

    if event.sampling == "b_min_separation":
        return spaced_epsilon(event, delta, accountant)
    with quiet():
        if not is_sampled(event):
            if event.noise == "gaussian":
                # Adaptive composition of Gaussians is one Gaussian, for which the exact answer is known.
                sigma = event.noise_multiplier / neighbour_distance(event.neighbouring) / math.sqrt(event.count)
                return float(dp_accounting.get_epsilon_gaussian(sigma, delta))
            event = replace(event, sampling="none", sampling_rate=1.0)
        elif event.sampling == "fixed":
            event = replace(event, neighbouring="replace_one")
        if accountant == "rdp":
            return _rdp_epsilon(event, delta, renyi_orders(event))
        try:
            return _pld_epsilon(event, delta, _interval(event, delta, tolerance, rough))
        except OverflowError:
            # Losses of hundreds, whose exponentials no float holds: nothing is promised.
            return math.inf


@lru_cache(maxsize=64)
def spaced_epsilon(event: PrivacyEvent, delta: float, accountant: Accountant) -> float:
    """Under b-min-separation. It takes up to a minute, and follows from the arguments alone."""
    bound = moment_epsilon([(coins_of(event), 1)], delta) if accountant == "rdp" else 0.0
    bound = bound or monte_carlo_epsilon(coins_of(event), delta)
    return min(bound, compute_epsilon(without_sampling(event), delta, "pld"))


def coins_of(event: PrivacyEvent) -> Coins:
    """Of an event under b-min-separation."""
    return Coins(np.array(event.column) / event.noise_multiplier, event.sampling_rate, event.count)


def _dp_event(event: PrivacyEvent, distance: float) -> Any:
    import dp_accounting

    if event.noise == "gaussian":
        release: Any = dp_accounting.GaussianDpEvent(event.noise_multiplier / distance)
    else:
        release = dp_accounting.LaplaceDpEvent(event.noise_multiplier / distance)
    if event.sampling == "poisson":
        release = dp_accounting.PoissonSampledDpEvent(event.sampling_rate, release)
    elif event.sampling == "fixed":
        # The accountant reads nothing of the two sizes but their ratio.
        release = dp_accounting.SampledWithoutReplacementDpEvent(1, event.sampling_rate, release)
    return dp_accounting.SelfComposedDpEvent(release, event.count)


def renyi_orders(event: PrivacyEvent) -> Sequence[float]:
    return _FIXED_ORDERS if event.sampling == "fixed" else _RDP_ORDERS


def best_of_many(event: PrivacyEvent, expected_runs: float, delta: float) -> float:
    """Epsilon, by Renyi divergence, of the best of a geometric number of runs of ``event``: see ``together.py``."""
    if not is_sampled(event):
        event = replace(event, sampling="none", sampling_rate=1.0)
    elif event.sampling == "fixed":
        event = replace(event, neighbouring="replace_one")
    with quiet():
        return _rdp_epsilons(event, [delta], renyi_orders(event), expected_runs)[0]


def renyi_epsilons(event: PrivacyEvent, deltas: Sequence[float]) -> list[float]:
    """Epsilon at many deltas, however small. Raises PrivacyError for an event without a bound by Renyi divergence."""
    resolve_accountant(event, "rdp", min(deltas))
    if event.sampling == "fixed" and is_sampled(event):
        event = replace(event, neighbouring="replace_one")
    with quiet():
        return _rdp_epsilons(event, deltas, renyi_orders(event))


def _rdp_epsilon(event: PrivacyEvent, delta: float, orders: Sequence[float]) -> float:
    return _rdp_epsilons(event, [delta], orders)[0]


def _rdp_epsilons(
    event: PrivacyEvent, deltas: Sequence[float], orders: Sequence[float], expected_runs: float | None = None
) -> list[float]:
    """expected_runs: where the best of a geometric number of runs is shown alone."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.dp_event import RepeatAndSelectDpEvent
    from dp_accounting.rdp import RdpAccountant

    relation = NeighboringRelation.ADD_OR_REMOVE_ONE
    if event.sampling == "fixed":
        relation = NeighboringRelation.REPLACE_ONE
    # More noise costs no more, and beyond this the divergences of fixed cohorts are lost in rounding.
    event = replace(event, noise_multiplier=min(event.noise_multiplier, _MOST_NOISE))
    accountant = RdpAccountant(orders, relation)
    # dp-accounting's RDP takes noise over the distance between neighbours, its PLD takes noise over one contribution.
    released = _dp_event(event, neighbour_distance(event.neighbouring))
    accountant.compose(released if expected_runs is None else RepeatAndSelectDpEvent(released, expected_runs, 1))
    return [float(accountant.get_epsilon(delta)) for delta in deltas]


def _pld_epsilon(event: PrivacyEvent, delta: float, interval: float) -> float:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import PLDAccountant

    if event.sampling == "fixed":
        one = fixed_cohort_losses(event.noise_multiplier / 2, event.sampling_rate, interval)
        return float(one.self_compose(event.count).get_epsilon_for_delta(delta))
    relation, distance = NeighboringRelation.ADD_OR_REMOVE_ONE, 1.0
    if event.neighbouring == "replace_one":
        if event.noise == "gaussian":
            relation = NeighboringRelation.REPLACE_ONE
        else:
            distance = 2.0
    accountant = PLDAccountant(relation, value_discretization_interval=interval)
    accountant.compose(_dp_event(event, distance))
    return float(accountant.get_epsilon(delta))


def _interval(event: PrivacyEvent, delta: float, tolerance: float, rough: float) -> float:
    """The coarsest discretisation that keeps the relative error of epsilon below ``tolerance`` and fits in memory.

    rough: a guess at epsilon, 0 where there is none.

    Composing ``count`` discretised losses was seen to add about ``count * interval**2 / 2`` to epsilon.
    """
    rough = rough or rough_epsilon(event, delta)
    if event.noise == "laplace":
        # Half of its losses are the largest one, which lies on the grid.
        one = _one_laplace_loss(event)
        return one / max(2, min(_LAPLACE_STEPS, int(_MAX_LAPLACE_POINTS * one / rough)))
    accurate = min(math.sqrt(2 * tolerance * rough / event.count), 100 * tolerance * max(1.0, rough / 100))
    return max(accurate, rough / MAX_GRID_POINTS, largest_gaussian_loss(event) / MAX_LOSS_POINTS, 1e-7)


def rough_epsilon(event: PrivacyEvent, delta: float) -> float:
    if event.sampling == "b_min_separation":
        event = in_turns(event)
    if event.noise == "laplace":
        one = _one_laplace_loss(event)
        return min(one * event.count, one * math.sqrt(2 * event.count * math.log(1 / delta)))
    if event.sampling != "none" and event.neighbouring == "replace_one":
        # Good enough to choose a grid with: RDP has no bound of its own for this, or a loose one.
        multiplier = event.noise_multiplier / neighbour_distance(event.neighbouring)
        event = replace(event, noise_multiplier=multiplier, sampling="poisson", neighbouring="zero_out")
    return max(_rdp_epsilon(event, delta, _ROUGH_ORDERS), 1e-6)


def _one_laplace_loss(event: PrivacyEvent) -> float:
    """The largest privacy loss of one release."""
    return _sampled_loss(event, neighbour_distance(event.neighbouring) / event.noise_multiplier)


def largest_gaussian_loss(event: PrivacyEvent) -> float:
    """The largest privacy loss of one release that is not left out."""
    sigma = event.noise_multiplier / neighbour_distance(event.neighbouring)
    return _sampled_loss(event, 1 / (2 * sigma**2) + _REACH / sigma)


def _sampled_loss(event: PrivacyEvent, loss: float) -> float:
    return math.log1p(event.sampling_rate * math.expm1(loss)) if loss < 700 else loss


@contextmanager
def quiet() -> Iterator[None]:
    """Silences overflow at orders and losses that the accountants then leave out themselves."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        log.setLevel(level)


_ROUGH_ORDERS = [1.1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 256]
# Without replacement the bound is exact at whole orders only, and takes time with the square of the order.
_FIXED_ORDERS = [1.25, 1.5, 1.75, *range(2, 33), *range(34, 65, 2), 72, 80, 96, 128, 192, 256]
_RDP_ORDERS = [
    *(1.02, 1.05),
    *(1 + x / 10 for x in range(1, 100)),
    *range(11, 64),
    *(72, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024),
]
