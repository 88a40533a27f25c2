"""A row of the published benchmark: what was published of it, and what its runs gave here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedflair.config.train_config import TrainConfig
from fedflair.data.published import NUM_USERS, SCORES
from fedflair.data.store.packed import open_store
from fedflair.sweep.results import Outcome, plus_minus, spread, words_of

ROWS = (
    "baseline",
    "coarse_pretrained_private",
    "coarse_pretrained_private_own_users",
    "central",
    "coarse_scratch",
    "coarse_scratch_private",
    "coarse_scratch_central",
    "fine_pretrained",
    "fine_pretrained_private",
    "fine_pretrained_central",
    "fine_scratch",
    "fine_scratch_private",
    "fine_scratch_central",
    "fedprox",
    "adafedprox",
    "scaffold",
    "reptile",
)
"""Shipped configurations that are rows of docs/reproducing.md, in its order."""

HEADINGS = ("row", "on test", "published", "here", "seeds", "difference")


def reproduction(
    row: str, config: TrainConfig, changed: Mapping[str, Any], outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """Both scores, in percent: as numbers, as a table's cells under ``HEADINGS``, and what must be said of them.

    changed: options in which the runs differ from the row; where there are any, or the data are not FLAIR's, the notes
    say that the two are not to be compared.
    """
    metric = config.evaluation.best_metric
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    own = {
        name: None if value is None else 100 * value
        for name, value in spread(outcome.test.get(metric) for outcome in done).items()
    }
    score = SCORES.get(row)
    published = {"mean": None, "std": None} if score is None else {"mean": score.mean, "std": score.std}
    notes = _notes(config, changed)
    far = None
    if published["mean"] is not None and own["mean"] is not None:
        far = own["mean"] - published["mean"]
    return {
        "row": row,
        "metric": metric,
        "published": published,
        "here": own,
        "seeds": len(done),
        "difference": far,
        "comparable": not notes,
        "notes": notes,
        "cells": [
            row,
            words_of(metric),
            "none" if score is None else plus_minus(published, ".1f"),
            plus_minus(own, ".1f"),
            str(len(done)),
            "-" if far is None else f"{far:+.1f}",
        ],
    }


def _notes(config: TrainConfig, changed: Mapping[str, Any]) -> list[str]:
    """Why the scores are not to be compared, a sentence each."""
    store = open_store(config.data.data_path)
    users = sum(len(partition.user_ids) for partition in store.partitions.values())
    found = []
    if store.metadata.provenance.get("source") == "synthetic":
        found.append(f"{store.path} is synthetic: its scores say nothing of FLAIR's.")
    elif users != NUM_USERS:
        found.append(f"{store.path} has {users:,} users, and FLAIR {NUM_USERS:,}: a part of it is another benchmark.")
    differ = {name: value for name, value in changed.items() if name not in _HARMLESS}
    if differ:
        words = ", ".join(f"{name} {value}" for name, value in differ.items())
        found.append(f"Not the row as published: {words}.")
    return found


# Where and how fast it is computed, and what is told whom; not what.
_HARMLESS = (
    "cpus_per_worker", "cuda_graphs", "device", "frozen_features", "gpus_per_worker", "ledger_anchor", "num_threads",
    "ray_address", "wandb_project_id", "worker_timeout", "workers",
)  # fmt: skip
