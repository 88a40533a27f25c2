"""``fedflair evaluate``: scores the best model of a finished or stopped run."""

from __future__ import annotations

import json as json_format
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from fedflair.backends import thread_backend
from fedflair.checkpoint import load_tensors
from fedflair.evaluate import score_partition
from fedflair.metrics import named_label_average_precision
from fedflair.options import config_of_run
from fedflair.setup import make_evaluation_setup
from fedflair.tracking import RunFolder


def evaluate(
    *,
    run: Path,
    partition: Literal["train", "val", "test"] = "test",
    data_path: Path | None = None,
    json: bool = False,
) -> None:
    """Score a run's best model on a partition and print its metrics.

    Args:
        run: The run folder.
        partition: The partition to score.
        data_path: Another store with the same labels; the run's own if not given.
        json: Print JSON instead of tables.
    """
    folder = RunFolder(run)
    config = config_of_run(folder)
    if data_path is not None:
        config = replace(config, data_path=data_path)
    parameters = load_tensors(folder.best)[0]["parameters"]
    setup = make_evaluation_setup(config, partition, load_tensors(folder.fixed)[0])
    with thread_backend(setup) as backend:
        scores = score_partition(parameters.to(setup.device), partition, setup=setup, backend=backend)
    metrics = scores.metrics()
    labels = named_label_average_precision(scores.logits, scores.targets, setup.labels.names)
    if json:
        print(json_format.dumps({"run": str(run), "partition": partition, **metrics, "label_ap": dict(labels)}))
        return
    console = Console()
    table = Table(title=f"{run}: {partition}", title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}" if value != int(value) else f"{int(value):,}")
    console.print(table)
    table = Table(title="AP by label", title_justify="left")
    table.add_column("label")
    table.add_column("AP", justify="right")
    ranked = sorted(labels.items(), key=lambda item: -1.0 if item[1] is None else item[1], reverse=True)
    for name, ap in ranked[:50]:
        table.add_row(name, "no positives" if ap is None else f"{ap:.4f}")
    console.print(table)
