"""What was released, as plain data, for every accountant."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Accountant = Literal["pld", "rdp", "monte_carlo"]
# ``auto`` is pld where it has a bound, monte_carlo for b-min-separation, else rdp.
AskedAccountant = Literal["auto", Accountant]
Neighbouring = Literal["zero_out", "replace_one"]
Noise = Literal["gaussian", "laplace"]
Sampling = Literal["none", "poisson", "fixed", "b_min_separation"]


@dataclass(frozen=True)
class PrivacyEvent:
    """What was released, as plain data: ``count`` noisy sums, each over a fresh random cohort.

    noise_multiplier: scale of the noise over the bound on the norm of one client's contribution (not over the distance
        between neighbouring sums, which is twice that bound where a client is replaced); 0 is no noise.
    sampling: ``poisson`` (each client independently with probability ``sampling_rate``), ``fixed`` (that share of all
        clients, without replacement), ``none`` (every client, every time), or ``b_min_separation`` (each client by
        coins, but for the b - 1 rounds after one that it was in; it is in a share ``sampling_rate`` of all rounds).
    neighbouring: ``zero_out``, one client's contribution replaced by zero, the number of clients being public: its
        dominating pair is that of adding or removing a client at a given rate; or ``replace_one`` client by another.
        Of cohorts of fixed size only the second is bounded, which the first is then at most, as zero is a contribution.
    column: for ``b_min_separation``, whose ``count`` sums have correlated noise, what one contribution adds to the b
        rounds from its own on, seen against independent noise; else nothing.
    """

    noise: Noise
    noise_multiplier: float
    count: int
    sampling: Sampling = "none"
    sampling_rate: float = 1.0
    neighbouring: Neighbouring = "zero_out"
    column: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, those of ``event_of``; without a column nothing is said of one."""
        fields = asdict(self)
        column = fields.pop("column")
        return {**fields, "column": list(column)} if column else fields


def event_of(fields: Mapping[str, Any]) -> PrivacyEvent:
    """The event whose ``as_dict`` that is. Raises TypeError for other fields."""
    return PrivacyEvent(**{**fields, "column": tuple(fields.get("column", ()))})


def is_sampled(event: PrivacyEvent) -> bool:
    return event.sampling != "none" and event.sampling_rate < 1


def neighbour_distance(neighbouring: Neighbouring) -> float:
    """Distance between neighbouring sums over the bound on one contribution."""
    return 2.0 if neighbouring == "replace_one" else 1.0


def without_sampling(event: PrivacyEvent) -> PrivacyEvent:
    """What the event costs at most to those who know every cohort: each client is in all that it can be in."""
    if event.sampling == "b_min_separation":
        turns = math.ceil(event.count / len(event.column))
        multiplier = event.noise_multiplier / math.hypot(*event.column)
        return PrivacyEvent(event.noise, multiplier, turns, neighbouring=event.neighbouring)
    drawn: Neighbouring = "replace_one" if event.sampling == "fixed" and is_sampled(event) else event.neighbouring
    return replace(event, sampling="none", sampling_rate=1.0, neighbouring=drawn)


def in_turns(event: PrivacyEvent) -> PrivacyEvent:
    """For b-min-separation: what b groups that take turns by coins would cost, which is about as much."""
    b = len(event.column)
    count, rate = math.ceil(event.count / b), min(1.0, b * event.sampling_rate)
    return replace(event, count=count, sampling="poisson", sampling_rate=rate, column=())
