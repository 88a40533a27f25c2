"""``fedflair evaluate``: scores the best or the last model of a finished or stopped run."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from fedflair.backends.threads import thread_backend
from fedflair.commands.evaluate_users import (
    evaluate_per_user,
    personalisation_of,
    print_user_tables,
    summary_of,
    write_user_rows,
)
from fedflair.config.options import config_of_run
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.evaluation.partition import score_partition
from fedflair.federated.setup import make_evaluation_setup
from fedflair.privacy.ledger import coverage
from fedflair.runs.folder import RunFolder
from fedflair.runs.json_text import strict
from fedflair.runs.tensors import load_tensors

MOST_LABELS_SHOWN = 50


def evaluate(
    *,
    run: Path,
    partition: Literal["train", "val", "test"] = "test",
    checkpoint: Literal["best", "last"] = "best",
    data_path: Path | None = None,
    per_user: bool = False,
    personalise_steps: int = 0,
    personalise_fraction: float = 0.5,
    personalise_learning_rate: float | None = None,
    json: bool = False,
) -> None:
    """Score a run's model on a partition, or on each of its users, and print the metrics.

    Args:
        run: The run folder.
        partition: The partition to score.
        checkpoint: The model that was best on val, or the one of the last round that was saved.
        data_path: Another store with the same labels; the run's own if not given.
        per_user: Score every user of its own; a file per_user_PARTITION.jsonl in the run folder has them all.
        personalise_steps: Also tune the model on each user's own images by that many steps (with per_user); 0 is none.
        personalise_fraction: Share of a user's images to tune on; both models are scored on the rest.
        personalise_learning_rate: Learning rate of those steps; the run's local_learning_rate if not given.
        json: Print JSON, with the AP of every label, instead of tables.
    """
    if personalise_steps and not per_user:
        raise ConfigError("personalise_steps: only users can be personalised; add --per_user")
    folder = RunFolder(run)
    config = config_of_run(folder)
    if data_path is not None:
        config = replace(config, data_path=data_path)
    parameters = load_tensors(folder.best if checkpoint == "best" else folder.last)[0]["parameters"]
    setup = make_evaluation_setup(config, partition, load_tensors(folder.fixed)[0])
    facts = {"run": str(run), "partition": partition, "checkpoint": checkpoint}
    title = f"{run}: {partition}, {checkpoint} model"
    if _promises_epsilon(config):
        facts[coverage.FIELD] = "every number here"
        title += " (computed without noise: the run's epsilon does not cover it)"
    if per_user:
        tuning = personalisation_of(config, personalise_steps, personalise_fraction, personalise_learning_rate)
        rows = evaluate_per_user(parameters, partition, setup=setup, personalisation=tuning)
        summary = summary_of(rows, tuning, facts)
        write_user_rows(folder, partition, summary, rows)
        if json:
            print(json_format.dumps(strict(summary), allow_nan=False))
        else:
            print_user_tables(title, summary)
        return
    with thread_backend(setup) as backend:
        scores = score_partition(parameters.to(setup.device), partition, setup=setup, backend=backend)
    measured = scores.measured()
    metrics, labels = measured.values(), measured.label_ap_by_name(setup.labels.names)
    if json:
        print(json_format.dumps(strict({**facts, **metrics, "label_ap": labels}), allow_nan=False))
    else:
        _print_tables(title, metrics, labels)


def _promises_epsilon(config: TrainConfig) -> bool:
    mechanisms = {config.central_privacy_mechanism, config.local_privacy_mechanism}
    return bool(mechanisms - {"none", "norm_clipping_only"})


def _print_tables(title: str, metrics: Mapping[str, float], labels: Mapping[str, float | None]) -> None:
    console = Console()
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name.replace("_", " "), f"{int(value):,}" if name.startswith("num_") else f"{value:.4f}")
    console.print(table)
    table = Table(title="AP by label", title_justify="left")
    table.add_column("label")
    table.add_column("AP", justify="right")
    ranked = sorted(labels.items(), key=lambda item: -1.0 if item[1] is None else item[1], reverse=True)
    for name, ap in ranked[:MOST_LABELS_SHOWN]:
        table.add_row(name, "no positives" if ap is None else f"{ap:.4f}")
    console.print(table)
    if len(ranked) > MOST_LABELS_SHOWN:
        console.print(f"and {len(ranked) - MOST_LABELS_SHOWN:,} labels more: --json has all", highlight=False)
