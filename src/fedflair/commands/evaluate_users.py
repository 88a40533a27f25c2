"""``fedflair evaluate --per_user``: every user of a partition, one by one, before and after fine-tuning."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.evaluation.partition import Scoring, batch_size
from fedflair.evaluation.personalise import FEWEST_IMAGES, Personalisation, UserEvaluation, evaluate_users
from fedflair.evaluation.users import user_groups
from fedflair.federated.algorithms.base import local_training
from fedflair.federated.setup import EvaluationSetup
from fedflair.metrics.user_summary import SHOWN_BY_SIZE, summarise_users
from fedflair.runs.folder import RunFolder, write_atomically
from fedflair.runs.json_text import strict

NAMES = {"micro_ap": "AP", "micro_precision": "precision", "micro_recall": "recall", "micro_f1": "F1"}
NAMES |= {"micro_accuracy": "accuracy"}


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
    lines = "".join(json_format.dumps(strict(row), allow_nan=False) + "\n" for row in rows)
    write_atomically(folder.path / f"per_user_{partition}.jsonl", lines)
    text = json_format.dumps(strict(facts), indent=2, allow_nan=False) + "\n"
    write_atomically(folder.path / f"per_user_{partition}.json", text)


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


def print_user_tables(title: str, summary: Mapping[str, Any]) -> None:
    """Tables of the distribution over users, by user size, and of what personalisation gains."""
    console = Console()
    table = _table(f"{title}, {summary['num_users']:,} users", "metric of a user")
    for heading in ("mean", "std", "first quartile", "median", "third quartile", "worst tenth"):
        table.add_column(heading, justify="right")
    for name, values in summary["distribution"].items():
        table.add_row(_name(name), *(f"{value:.4f}" for value in values.values()))
    console.print(table)
    tuned = summary["personalisation"]
    columns, title = list(SHOWN_BY_SIZE), "Means by number of images of a user"
    if tuned is not None:
        title += "; of the global and the personalised model on the held-out images"
        columns += [f"{model}_micro_ap" for model in ("global", "personalised")]
    table = _table(title, "images")
    for heading in ("users", *map(_name, columns)):
        table.add_column(heading, justify="right")
    for row in summary["by_size"]:
        cells = (f"{row[name]:.4f}" if name in row else "-" for name in columns)
        table.add_row(row["images"], f"{row['num_users']:,}", *cells)
    console.print(table)
    if tuned is not None:
        _print_personalisation(console, tuned)


def _print_personalisation(console: Console, tuned: Mapping[str, Any]) -> None:
    title = (
        f"After {tuned['num_steps']} local steps at learning rate {tuned['learning_rate']:g} on "
        f"{tuned['fraction']:.0%} of a user's images: both models on the held-out rest, {tuned['num_users']:,} users"
    )
    table = _table(title, "metric of a user")
    for heading in ("global", "personalised", "gain", "standard error", "users up", "users down"):
        table.add_column(heading, justify="right")
    for name, gain in tuned["gain"].items():
        means = (f"{tuned[model][name]['mean']:.4f}" for model in ("global", "personalised"))
        shares = (f"{gain['share_risen']:.0%}", f"{gain['share_fallen']:.0%}")
        table.add_row(_name(name), *means, f"{gain['mean']:+.4f}", f"{gain['standard_error']:.4f}", *shares)
    console.print(table)
    console.print(
        f"{tuned['num_users_left_out']:,} users with fewer than {FEWEST_IMAGES} images are left out.", highlight=False
    )


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    return table


def _name(column: str) -> str:
    for name, shown in NAMES.items():
        if column.endswith(name):
            return f"{column.removesuffix(name).rstrip('_')} {shown}".strip()
    return column.replace("_", " ")
