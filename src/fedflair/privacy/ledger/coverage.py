"""Which of a private run's numbers its epsilon does not cover, and how they are marked.

Epsilon covers what follows from the noisy sums: the models, the clipping bound that a noisy count moves, and what is
estimated from a noisy sum and the scale of its noise, and metrics that got noise of their own. Every
other number of a run is computed without noise from somebody's data (losses and counts from training users, scores from
the users of val and test, seconds from how much everybody had to compute), so whatever is not listed here is marked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FIELD = "not_covered_by_epsilon"
TUNING = (
    "Tuning is not covered either: every further run on the same users, and every option chosen by looking at such "
    "numbers, costs privacy that no epsilon here counts."
)
_COVERED = frozenset(
    {
        "round",
        "privacy/clipping_bound",
        "privacy/noise_std",
        "privacy/estimated_signal_to_noise",
        "private/num_clients",
        "private/loss",
        "private/num_images",
        "private/share_clipped",
    }
)
# What tells, alone or together, how many clients a cohort had, or which: its size is not public where it is drawn by
# coins. Time is not among it, which the files' own dates would show.
_OF_COHORT = frozenset(
    {
        "train/num_clients",
        "train/num_examples",
        "train/num_rejected",
        "train/num_dropped",
        "train/num_late",
        "train/images_per_second",
        "train/simulated_seconds",
        "train/bytes_up",
        "train/bytes_down",
        "privacy/num_clipped",
    }
)
# Of summary.json, with the file beside it that has nothing but such numbers.
SUMMARY = ["best_round", "seconds", "val", "test", "label_ap.json"]
WORDS = (
    "Every number here but privacy/clipping_bound, privacy/noise_std, privacy/estimated_signal_to_noise and those of "
    "private/ is computed without noise from users' data: the run's epsilon does not cover it."
)


def is_promised(*descriptions: Mapping[str, Any] | None) -> bool:
    """Whether one of the mechanisms so described promises an epsilon, of which something could be left uncovered."""
    return any(facts is not None and facts.get("delta") is not None for facts in descriptions)


def marked(row: Mapping[str, Any]) -> dict[str, Any]:
    """``row`` with one more field, ``not_covered_by_epsilon``: the names of its numbers that were computed openly."""
    return {**row, FIELD: uncovered(row)}


def without_cohort(row: Mapping[str, Any]) -> dict[str, Any]:
    """``row`` without the numbers that count a secret cohort, which are for nobody's eyes but the ledger's."""
    return {name: value for name, value in row.items() if name not in _OF_COHORT}


def uncovered(names: Iterable[str]) -> list[str]:
    """Those of a run's numbers that its epsilon does not cover."""
    return [name for name in names if name not in _COVERED]
