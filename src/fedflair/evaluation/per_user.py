"""Every user of a partition, one by one, before and after fine-tuning: rows, their summary, and the files of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.evaluation.partition import Scoring, batch_size
from fedflair.evaluation.personalise import Personalisation, UserEvaluation, evaluate_users
from fedflair.evaluation.users import user_groups
from fedflair.federated.algorithms.base import local_training
from fedflair.federated.setup import EvaluationSetup
from fedflair.metrics.user_summary import summarise_users
from fedflair.runs.folder import RunFolder
from fedflair.runs.json_text import dumps
from fedflair.system.files import write_atomically


def personalisation_of(
    config: TrainConfig, num_steps: int, fraction: float, learning_rate: float | None
) -> Personalisation | None:
    """How users' models are tuned: as on a client in training, but for what is given here. None for 0 steps.

    learning_rate: ``local_learning_rate`` where not given. Raises ConfigError, naming the option, for impossible ones.
    """
    if num_steps < 0:
        raise ConfigError(f"personalise_steps: {num_steps} is impossible; it must be at least 0")
    if not 0 < fraction < 1:
        raise ConfigError(f"personalise_fraction: {fraction} is impossible; it must be above 0 and below 1")
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise ConfigError(f"personalise_learning_rate: {learning_rate} is impossible; it must be above 0")
    if num_steps == 0:
        return None
    training = replace(local_training(config, 0), num_steps=num_steps)
    if learning_rate is not None:
        training = replace(training, learning_rate=learning_rate)
    return Personalisation(training, fraction)


def evaluate_per_user(
    parameters: torch.Tensor, partition: str, *, setup: EvaluationSetup, personalisation: Personalisation | None = None
) -> list[dict[str, Any]]:
    """The rows of every user of a partition (``personalise.evaluate_users``), in the store's order.

    Images, pixels and scores are held for one group of users a worker; only the rows grow with the partition.
    """
    images = setup.store.partitions[partition]
    evaluation = UserEvaluation(Scoring(parameters.to(setup.device), partition), personalisation)
    found: dict[int, list[dict[str, Any]]] = {}
    with thread_backend(setup) as backend:
        groups = user_groups(images, range(images.num_users), batch_size(setup))
        for position, rows in backend.map_unordered(evaluate_users, evaluation, groups):
            found[position] = rows
    return [row for position in sorted(found) for row in found[position]]


def write_user_rows(folder: RunFolder, partition: str, facts: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    """``per_user_PARTITION.jsonl``, a line a user, and ``per_user_PARTITION.json`` with the summary and the facts."""
    lines = "".join(dumps(row) + "\n" for row in rows)
    write_atomically(folder.path / f"per_user_{partition}.jsonl", lines)
    write_atomically(folder.path / f"per_user_{partition}.json", dumps(facts, indent=2) + "\n")


def summary_of(
    rows: list[dict[str, Any]], personalisation: Personalisation | None, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The summary of the rows, with how it came about: ``facts`` and the options of the personalisation."""
    summary = {**facts, **summarise_users(rows)}
    if personalisation is not None and summary["personalisation"] is not None:
        summary["personalisation"] |= {
            "num_steps": personalisation.training.num_steps,
            "fraction": personalisation.fraction,
            "learning_rate": personalisation.training.learning_rate,
        }
    return summary
