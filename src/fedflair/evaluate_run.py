"""``fedflair evaluate``: scores the best or the last model of a finished or stopped run."""

from __future__ import annotations

import json as json_format
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from fedflair.backends import thread_backend
from fedflair.checkpoint import load_tensors
from fedflair.evaluate import score_partition
from fedflair.options import config_of_run
from fedflair.setup import make_evaluation_setup
from fedflair.tracking import RunFolder

MOST_LABELS_SHOWN = 50


def evaluate(
    *,
    run: Path,
    partition: Literal["train", "val", "test"] = "test",
    checkpoint: Literal["best", "last"] = "best",
    data_path: Path | None = None,
    json: bool = False,
) -> None:
    """Score a run's model on a partition and print its metrics.

    Args:
        run: The run folder.
        partition: The partition to score.
        checkpoint: The model that was best on val, or the one of the last round that was saved.
        data_path: Another store with the same labels; the run's own if not given.
        json: Print JSON, with the AP of every label, instead of tables.
    """
    folder = RunFolder(run)
    config = config_of_run(folder)
    if data_path is not None:
        config = replace(config, data_path=data_path)
    parameters = load_tensors(folder.best if checkpoint == "best" else folder.last)[0]["parameters"]
    setup = make_evaluation_setup(config, partition, load_tensors(folder.fixed)[0])
    with thread_backend(setup) as backend:
        scores = score_partition(parameters.to(setup.device), partition, setup=setup, backend=backend)
    measured = scores.measured()
    metrics, labels = measured.values(), measured.label_ap_by_name(setup.labels.names)
    if json:
        print_json({"run": str(run), "partition": partition, "checkpoint": checkpoint, **metrics, "label_ap": labels})
    else:
        _print_tables(f"{run}: {partition}, {checkpoint} model", metrics, labels)


def print_json(values: Mapping[str, Any]) -> None:
    """One line of strict JSON: what is not a number, such as AP without positives, is null."""
    print(json_format.dumps(_strict(values), allow_nan=False))


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
