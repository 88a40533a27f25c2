"""Whole privacy loss distributions, of which ``accountants.epsilon`` needs one number only: composed, and as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fedflair.privacy.accounting.accountants import (
    MAX_GRID_POINTS,
    MAX_LOSS_POINTS,
    largest_gaussian_loss,
    quiet,
    rough_epsilon,
)
from fedflair.privacy.accounting.events import PrivacyEvent, is_sampled, neighbour_distance
from fedflair.privacy.accounting.fixed_cohorts import fixed_cohort_losses

# Relative error of an epsilon that is read off such a distribution, which errs upwards.
_TOLERANCE = 1e-4
_LAPLACE_STEPS = 300


def composed_losses(events: Sequence[PrivacyEvent], delta: float) -> Any:
    """The privacy loss distribution (dp-accounting's) of all events together, adaptively composed, rounded upwards.

    Each event has noise, is released at least once and has an accountant (``resolve_accountant``). delta: where
    epsilon is to be read off, which says how fine the grid must be.
    """
    interval = _interval(events, delta)
    with quiet():
        first, *others = (_losses(event, interval) for event in events)
        for other in others:
            first = first.compose(other)
    return first


def _losses(event: PrivacyEvent, interval: float) -> Any:
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution as library

    noise, distance, rate = event.noise_multiplier, neighbour_distance(event.neighbouring), event.sampling_rate
    if not is_sampled(event):
        if event.noise == "gaussian":
            # Adaptive composition of Gaussians is one Gaussian.
            together = noise / distance / math.sqrt(event.count)
            return library.from_gaussian_mechanism(together, value_discretization_interval=interval)
        one = library.from_laplace_mechanism(noise / distance, value_discretization_interval=interval)
    elif event.sampling == "fixed":
        one = fixed_cohort_losses(noise / 2, rate, interval)
    elif event.noise == "gaussian":
        relation = NeighboringRelation.ADD_OR_REMOVE_ONE
        if event.neighbouring == "replace_one":
            relation = NeighboringRelation.REPLACE_ONE
        one = library.from_gaussian_mechanism(
            noise, value_discretization_interval=interval, sampling_prob=rate, neighboring_relation=relation
        )
    else:
        one = library.from_laplace_mechanism(noise, value_discretization_interval=interval, sampling_prob=rate)
    return one.self_compose(event.count)


def _interval(events: Sequence[PrivacyEvent], delta: float) -> float:
    """As ``accountants`` chooses it: composing discretised losses was seen to add their number * interval**2 / 2."""
    with quiet():
        roughs = [rough_epsilon(event, delta) for event in events]
    releases = sum(event.count if is_sampled(event) or event.noise == "laplace" else 1 for event in events)
    accurate = min(math.sqrt(2 * _TOLERANCE * max(roughs) / releases), 1e-2)
    gaussian = [replace(event, count=1) for event in events if event.noise == "gaussian"]
    unsampled = [event for event in events if event.noise == "gaussian" and not is_sampled(event)]
    largest = max(map(largest_gaussian_loss, gaussian), default=0.0)
    # Of releases that everybody is in, the composition is taken in one step.
    for event in unsampled:
        merged = replace(event, noise_multiplier=event.noise_multiplier / math.sqrt(event.count))
        largest = max(largest, largest_gaussian_loss(merged))
    for event in events:
        if event.noise == "laplace":
            accurate = min(accurate, neighbour_distance(event.neighbouring) / event.noise_multiplier / _LAPLACE_STEPS)
    return max(accurate, sum(roughs) / MAX_GRID_POINTS, largest / MAX_LOSS_POINTS, 1e-7)
