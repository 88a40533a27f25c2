"""A run whose model is no longer made of numbers ends, rather than go on rejecting every client."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedflair.errors import ConfigError
from fedflair.federated.server import ServerState
from fedflair.privacy.contract import CohortStats
from fedflair.runs.folder import RunFolder
from fedflair.runs.tensors import load_facts


def refuse_divergence(state: ServerState, cohort: CohortStats, row: Mapping[str, Any], folder: RunFolder) -> None:
    """Raises ConfigError where the round that led to ``state``, with that row of metrics, shows a diverged model."""
    why = _why(state, cohort, row)
    if not why:
        return
    kept = (load_facts(folder.last) or {"round": 0})["round"]
    raise ConfigError(
        f"learning_rate: the run diverged in round {state.round}: {why}; lower learning_rate, local_learning_rate or "
        f"the noise and start a new run; the last finite checkpoint is {folder.last} (round {kept})"
    )


def _why(state: ServerState, cohort: CohortStats, row: Mapping[str, Any]) -> str:
    if not bool(state.parameters.isfinite().all()):
        return "the parameters are not finite"
    # One client alone may have done it to itself, and a run of such cohorts would have no way past that round.
    if cohort.num_clients > 1 and cohort.num_rejected == cohort.num_clients:
        return "no client's update was finite"
    if not math.isfinite(row.get("val/loss", 0.0)):
        return "its outputs on val are not finite"
    return ""
