"""The best or the last model of a finished or stopped run, scored on a partition or on each of its users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.evaluation.opened import CheckpointName, open_run
from fedflair.evaluation.partition import score_partition
from fedflair.evaluation.per_user import evaluate_per_user, personalisation_of, summary_of, write_user_rows
from fedflair.federated.setup import EvaluationSetup, make_evaluation_setup
from fedflair.metrics.pfl import NAME, bucket_counts, pfl_values
from fedflair.runs.configuration import require_store
from fedflair.runs.folder import RunFolder, writing

PartitionName = Literal["train", "val", "test"]
MetricsName = Literal["exact", "pfl"]


@dataclass(frozen=True)
class RunScores:
    """What a run's model scored on a partition.

    facts: ``run``, ``partition`` and ``checkpoint``; whose the ``metrics`` are where they are not the exact ones; where
        the run promises an epsilon what it does not cover; ``kernels`` where they are not those that the run computed
        with.
    metrics: by name. label_ap: AP by the label's name; None where the label has no positives.
    """

    facts: Mapping[str, str]
    metrics: Mapping[str, float]
    label_ap: Mapping[str, float | None]


@dataclass(frozen=True)
class _Model:
    """A run's model, ready to be scored. parameters: float32 [P]."""

    folder: RunFolder
    config: TrainConfig
    parameters: torch.Tensor
    setup: EvaluationSetup
    facts: dict[str, str]


def score_run(
    run: Path,
    partition: PartitionName,
    checkpoint: CheckpointName,
    data_path: Path | None = None,
    metrics: MetricsName = "exact",
) -> RunScores:
    """Scores a run's model on every image of a partition.

    data_path: a store in place of the run's own, with the same labels in any order.
    metrics: fedflair's exact ones, or those of pfl-research's benchmark (``metrics/pfl.py``).
    Raises ConfigError and DataError where the folder holds no such run, its store was exchanged, or another store has
    other labels.
    """
    model = _open(run, partition, checkpoint, data_path)
    with thread_backend(model.setup) as backend:
        scores = score_partition(model.parameters.to(model.setup.device), partition, setup=model.setup, backend=backend)
    measured, facts = scores.measured(), dict(model.facts)
    values = measured.values()
    if metrics == "pfl":
        buckets = bucket_counts(scores.logits, scores.targets)
        facts["metrics"], values = NAME, pfl_values(buckets, measured)
        # What has no positives is told from what scores 0.
        label_ap = np.where(np.isnan(measured.label_ap), np.nan, buckets.label_ap())
        measured = replace(measured, label_ap=label_ap)
    return RunScores(facts, values, measured.label_ap_by_name(model.setup.labels.names))


def score_users_of_run(
    run: Path,
    partition: PartitionName,
    checkpoint: CheckpointName,
    data_path: Path | None = None,
    *,
    num_steps: int = 0,
    fraction: float = 0.5,
    learning_rate: float | None = None,
) -> dict[str, Any]:
    """Scores a run's model on each user of a partition, and returns the summary (``per_user.summary_of``).

    The summary and a row of each user are left in the run folder (``per_user.write_user_rows``).
    num_steps, fraction, learning_rate: how each user's model is tuned (``per_user.personalisation_of``).
    Raises ConfigError and DataError as ``score_run`` does, and for impossible options.
    """
    model = _open(run, partition, checkpoint, data_path)
    tuning = personalisation_of(model.config, num_steps, fraction, learning_rate)
    with writing(model.folder):
        rows = evaluate_per_user(model.parameters, partition, setup=model.setup, personalisation=tuning)
        summary = summary_of(rows, tuning, model.facts)
        write_user_rows(model.folder, partition, summary, rows)
    return summary


def _open(run: Path, partition: PartitionName, checkpoint: CheckpointName, data_path: Path | None) -> _Model:
    opened = open_run(run, checkpoint)
    config = opened.config
    if data_path is not None:
        config = config.changed(data_path=data_path)
    else:
        require_store(config)
    labels = None if opened.provenance is None else opened.provenance.labels
    setup = make_evaluation_setup(config, partition, opened.fixed, labels, opened.kernels)
    if data_path is None:
        opened.check_store(setup.store)
    run_facts = opened.facts
    facts = {"run": run_facts.pop("run"), "partition": partition, **run_facts}
    return _Model(opened.folder, config, opened.parameters, setup, facts)
