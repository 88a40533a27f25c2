"""What several runs on the same people cost together, and what it costs to show the best of them only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.accountants import (
    SMALLEST_PLD_DELTA,
    best_of_many,
    coins_of,
    epsilon,
    quiet,
    resolve_accountant,
)
from fedflair.privacy.accounting.cache import remembered
from fedflair.privacy.accounting.events import PrivacyEvent, is_sampled, neighbour_distance, without_sampling
from fedflair.privacy.accounting.losses import composed_losses
from fedflair.privacy.accounting.monte_carlo import moment_epsilon


def epsilon_together(events: Sequence[PrivacyEvent], delta: float) -> float:
    """An upper bound on the epsilon of everything that the events release, each chosen knowing what came before.

    Of events for ``zero_out`` and fixed cohorts for ``replace_one`` it is that of ``zero_out``, which both bound.
    Raises PrivacyError where no accountant has a bound.
    """
    if any(event.column for event in events):
        return _spaced_together(events, delta)
    counts: Counter[PrivacyEvent] = Counter()
    for event in events:
        if event.count > 0 and event.sampling_rate > 0:
            counts[replace(event, count=1)] += event.count
    if any(event.noise_multiplier == 0 for event in counts):
        return math.inf
    merged = [replace(event, count=count) for event, count in counts.items()]
    if not merged:
        return 0.0
    for event in merged:
        resolve_accountant(event, "auto", delta)
    if len(merged) == 1:
        return epsilon(merged[0], delta)
    if all(event.noise == "gaussian" and not is_sampled(event) for event in merged):
        mu = math.hypot(*map(gaussian_mu, merged))
        return epsilon(PrivacyEvent("gaussian", 1 / mu, 1), delta)
    if delta < SMALLEST_PLD_DELTA:
        raise PrivacyError(f"delta: below {SMALLEST_PLD_DELTA:g} no accountant composes different runs; raise delta")
    inputs = {"events": sorted(map(str, map(asdict, merged))), "delta": delta}
    return remembered("together", inputs, partial(_composed, merged, delta))


def _spaced_together(events: Sequence[PrivacyEvent], delta: float) -> float:
    """Of runs under b-min-separation: each begins anew, so that their moments multiply."""
    counts = Counter(event for event in events if event.count > 0)
    if any(event.noise_multiplier == 0 for event in counts):
        return math.inf
    if len(counts) == 1 and counts.total() == 1:
        return epsilon(next(iter(counts)), delta)
    if not all(event.column for event in counts):
        raise PrivacyError("accountant: runs with b_min_separation cohorts are composed with each other only")
    for event in counts:
        resolve_accountant(event, "auto", delta)
    inputs = {"events": sorted((str(asdict(event)), times) for event, times in counts.items()), "delta": delta}
    return remembered("moments together", inputs, partial(_moments_together, counts, delta))


def _moments_together(counts: Mapping[PrivacyEvent, int], delta: float) -> float:
    return moment_epsilon([(coins_of(event), times) for event, times in counts.items()], delta)


def _composed(events: Sequence[PrivacyEvent], delta: float) -> float:
    try:
        with quiet():
            return float(composed_losses(events, delta).get_epsilon_for_delta(delta))
    except OverflowError:
        return math.inf


def gaussian_mu(event: PrivacyEvent) -> float:
    """The mu with which Gaussian releases are mu-GDP (Dong, Roth and Su 2019, arXiv:1905.02383).

    Exact without sampling. With it, it is a bound, and no smaller mu holds at every epsilon: far out in the tail, a
    client who was drawn is told as if all were.
    """
    event = without_sampling(event)
    return neighbour_distance(event.neighbouring) / event.noise_multiplier * math.sqrt(event.count)


def zcdp(event: PrivacyEvent) -> float:
    """The rho with which all releases are rho-zCDP (Bun and Steinke 2016, arXiv:1605.02658), from what one release is.

    Gaussian: mu^2 / 2, which sampling does not lower either, as orders without end look at the tail alone. Laplace: one
    release is (epsilon, 0)-private, with sampling a smaller epsilon, and epsilon^2 / 2 each.
    """
    if event.noise == "gaussian":
        event = without_sampling(event)
        # Not by way of mu, whose root would show an integer as a little more than it is.
        return event.count * (neighbour_distance(event.neighbouring) / event.noise_multiplier) ** 2 / 2
    one = neighbour_distance(event.neighbouring) / event.noise_multiplier
    if is_sampled(event) and one < 700:
        one = math.log1p(event.sampling_rate * math.expm1(one))
    return event.count * one**2 / 2


def selection_epsilon(event: PrivacyEvent, expected_runs: float, delta: float) -> float:
    """Epsilon of the best of a random number of runs alone, by whatever score, each of them one ``event``.

    The number is geometric, at least 1, with that mean; it, and the runs that were not best, must stay secret (Papernot
    and Steinke 2022, arXiv:2110.03620, theorem 2, by Renyi divergence). Raises PrivacyError for events without one.
    """
    resolve_accountant(event, "rdp", delta)
    if event.noise_multiplier == 0:
        return math.inf
    if event.column:
        event = without_sampling(event)
    inputs = {**event.as_dict(), "expected_runs": expected_runs, "delta": delta}
    return remembered("selection", inputs, partial(best_of_many, event, expected_runs, delta))
