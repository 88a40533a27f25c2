"""What all runs of a sweep cost the people they trained on, together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fedflair.errors import PrivacyError
from fedflair.privacy.accounting.events import event_of
from fedflair.privacy.accounting.shown import finite, show
from fedflair.privacy.accounting.together import epsilon_together

_COVERS = (
    "That covers every model of theirs, and whichever is chosen by scores on val, which cost the users of val and not "
    "those trained on."
)


def cost_of(terms: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Epsilon of all runs with a ledger together, at the smallest of their deltas; None where fewer than two have one.

    terms: line 1 of each run's ledger, which has what all its rounds release; a run that ended early released less.
    ``epsilon`` is that of the simulated deployments, ``run_epsilon`` of the runs; None is infinite. ``refused`` says
    why there is no such number.
    """
    private = [one for one in terms if one is not None]
    if len(private) < 2:
        return None
    facts: dict[str, Any] = {"runs": len(private), "without_ledger": len(terms) - len(private)}
    try:
        facts["delta"] = min(float(one["delta"]) for one in private)
        facts["simulated"] = any(bool(one["simulated"]) for one in private)
        if any(one["artificial_users"] for one in private):
            return {**facts, "refused": "artificial users are other groups of images in runs of another seed"}
        for name, source in (("epsilon", "event"), ("run_epsilon", "run_event")):
            found = epsilon_together([event_of(one[source]) for one in private], facts["delta"])
            seeded = any(one["noise_from_seed"] for one in private) and (
                source == "run_event" or not facts["simulated"]
            )
            facts[name] = finite(math.inf if seeded else found)
    except PrivacyError as error:
        return {**facts, "refused": str(error)}
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return {**facts, "refused": "the ledger of one of them cannot be read here"}
    return facts


def sentence_of(facts: Mapping[str, Any]) -> str:
    """For the notes below a sweep's table."""
    which = f"All {facts['runs']} private runs of the sweep together"
    if "refused" in facts:
        return f"{which}: no epsilon, as {facts['refused']}."
    at = f"at delta {facts['delta']:g}"
    told = f"epsilon {show(facts['run_epsilon'])} {at}"
    if facts["simulated"]:
        told = f"epsilon {show(facts['epsilon'])} * {at} in the simulated deployment"
        told += f", {show(facts['run_epsilon'])} for the runs themselves"
    others = ""
    if facts["without_ledger"]:
        others = (
            f" {facts['without_ledger']} more runs keep no ledger: they promise nothing to the users they trained on."
        )
    return f"{which}: {told}. {_COVERS}{others}"
