"""What a mechanism promises where the run starts from a model that somebody trained before: of what is added, no more.

Two runs on the same users compose: what both tell of a user is bounded by the sums of their epsilons and of their
deltas, where both are about the same neighbours (basic composition, Dwork and Roth 2014, theorem 3.16). A model that
was trained without a promise tells what it tells, and no later run's epsilon covers that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedflair.privacy.accounting.shown import UNCOVERED_START, figures, finite, promises, show
from fedflair.privacy.contract import Origin


def with_origin(description: Mapping[str, Any], origin: Origin | None) -> Mapping[str, Any]:
    """A mechanism's description with what its epsilon does not cover; as it is where it promises none."""
    if origin is None or not promises(description):
        return description
    together = _together(description, origin)
    facts: dict[str, Any] = {
        **description,
        "started_from": {
            "model": origin.name,
            "same_users": origin.same_users,
            "epsilon": origin.epsilon,
            "delta": origin.delta,
            "together_epsilon": None if together is None else together[0],
            "together_delta": None if together is None else together[1],
        },
        UNCOVERED_START: origin.same_users is not False,
    }
    return {**facts, "words": f"{description['words']} {_sentence(origin, together)}"}


def _together(description: Mapping[str, Any], origin: Origin) -> tuple[float, float] | None:
    """(epsilon, delta) of both runs for their users; None where they cannot be added."""
    if not origin.same_users or origin.epsilon is None or origin.delta is None:
        return None
    # A client's own mechanism promises something to the server, and groups of images are no people.
    if "sampling" not in description or description.get("artificial_users"):
        return None
    if description["neighbouring"] != origin.neighbouring:
        return None
    own = finite(figures(description)[1])
    return None if own is None else (own + origin.epsilon, float(description["delta"]) + origin.delta)


def _sentence(origin: Origin, together: tuple[float, float] | None) -> str:
    start = f"It starts from the model of {origin.name}"
    if origin.same_users is None:
        return f"{start}, whose users are not known: if they are the same, nothing here covers what it tells of them."
    if not origin.same_users:
        return f"{start}, trained on another store: for whoever is in both, it covers what this run adds and no more."
    if not origin.private:
        return (
            f"{start}, which was trained on the same users without any epsilon: this one covers what the run adds, and "
            "nothing of what that model tells of them."
        )
    if together is None:
        return (
            f"{start}, which was trained on the same users under a promise of its own: this one does not cover that "
            "run, and what both cost together is not computed."
        )
    return (
        f"{start}, which was trained on the same users with epsilon {show(origin.epsilon)} at delta "
        f"{origin.delta:g}: this one does not cover that run. Both together cost them epsilon {show(together[0])} at "
        f"delta {together[1]:g} at most, the sums."
    )


def promised_by(description: Mapping[str, Any], origin: Origin | None) -> tuple[float, float, str] | None:
    """(epsilon, delta, neighbouring) that a run's users were promised, with what it started from; None for no number.

    Of the run itself, where it simulates a larger deployment.
    """
    if not promises(description) or "sampling" not in description or description.get("artificial_users"):
        return None
    epsilon, delta = figures(description)[1], float(description["delta"])
    if origin is not None and origin.same_users is not False:
        together = _together(description, origin)
        if together is None:
            return None
        epsilon, delta = together
    return (epsilon, delta, str(description["neighbouring"])) if math.isfinite(epsilon) else None
