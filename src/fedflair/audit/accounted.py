"""What a path is accounted with: how much noise there has to be, from the event and not from what a mechanism says.

The event is what epsilon was computed from. Everything that a mechanism states beside it is compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.errors import ConfigError
from fedflair.privacy.accounting.events import Accountant, PrivacyEvent
from fedflair.privacy.contract import MechanismState
from fedflair.privacy.path import PrivacyPath

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accounted:
    """What the run's own epsilon rests on.

    event: of the run itself, over all its rounds. seen: the same with the noise on the sum alone; other than ``event``
        where a count, or metrics, are released as well.
    min_separation: rounds of one group of clients that count as one. count_std: of the noise on the count of whole
        updates, in clients; None where none is released.
    strategy: the matrix that makes the noises of all rounds independent, float64 [rounds, rounds].
    multiplier: scale of the fresh noise on a sum over the clipping bound: from the event, where one of its releases is
        one contribution; where it is all of a client's, as stated, and what each client adds up to is compared with it.
    rotating: who is in a cohort is known to everybody.
    column: what one contribution is accounted to add to the rounds from its own on, under b-min-separation; else None.
    """

    event: PrivacyEvent
    seen: PrivacyEvent
    delta: float
    accountant: Accountant
    min_separation: int
    count_std: float | None
    strategy: Vector
    multiplier: float
    rotating: bool
    column: Vector | None

    @property
    def turns(self) -> int:
        """Groups of clients that take turns."""
        return 1 if self.column is not None else self.min_separation

    @property
    def signed(self) -> bool:
        """A client is replaced by another one, whose update may be the opposite, instead of being left out."""
        return self.event.neighbouring == "replace_one"


def accounted(path: PrivacyPath, num_rounds: int, state: MechanismState) -> Accounted:
    """What ``path`` is accounted with; ``state`` is its mechanism's, which has the filter of correlated noise.

    Raises ConfigError where the mechanism promises nothing.
    """
    mechanism, facts = path.mechanism, path.mechanism.description
    event = mechanism.run_event(num_rounds)
    if event is None:
        raise ConfigError(
            f"central_privacy_mechanism: {mechanism.name} promises no epsilon, so there is nothing to audit; name "
            "another"
        )
    count_std = float(facts["run_count_noise_std"]) if facts["adaptive_clipping"] else None
    counts = len(mechanism.group_bounds(state)) or 1
    seen = _without_metrics(event if count_std is None else _without_counts(event, count_std, counts), facts)
    multiplier, rotating = seen.noise_multiplier, event.sampling == "none"
    if rotating and mechanism.strategy is not None:
        multiplier = float(facts["run_noise_multiplier"]) * seen.noise_multiplier / event.noise_multiplier
    return Accounted(
        event=event,
        seen=seen,
        delta=float(facts["delta"]),
        accountant=facts["accountant"],
        min_separation=int(facts.get("run_min_separation", facts["min_separation"])),
        count_std=count_std,
        strategy=np.eye(num_rounds) if mechanism.strategy is None else mechanism.strategy(state, num_rounds),
        multiplier=multiplier,
        rotating=rotating,
        column=np.array(event.column) if event.column else None,
    )


def _without_metrics(event: PrivacyEvent, facts: Mapping[str, Any]) -> PrivacyEvent:
    """What is left of a release's multiplier for the sum, where a share of the budget goes to metrics."""
    metrics = facts.get("private_metrics")
    if not metrics:
        return event
    return replace(event, noise_multiplier=event.noise_multiplier / (1 - metrics["share"]) ** (1 / facts["order"]))


def _without_counts(event: PrivacyEvent, count_std: float, num_counts: int) -> PrivacyEvent:
    """What is left of a release's multiplier for the sum, a count's sensitivity being 1/2; all of it if nothing."""
    left = event.noise_multiplier**-2 - num_counts * (2 * count_std) ** -2
    return replace(event, noise_multiplier=left**-0.5) if left > 0 else event
