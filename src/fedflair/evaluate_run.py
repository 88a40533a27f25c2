"""``fedflair evaluate``: scores the best model of a finished or stopped run."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table

from fedflair.backends import thread_backend
from fedflair.checkpoint import load_tensors
from fedflair.config import TrainConfig
from fedflair.data.store import open_store
from fedflair.errors import DataError
from fedflair.evaluate import score_partition
from fedflair.metrics import named_label_average_precision
from fedflair.models import MODELS
from fedflair.options import NAMES
from fedflair.tracking import RunFolder, read_config


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
    options = {name: value for name, value in read_config(folder).items() if name in NAMES}
    paths = {name: Path(options[name]) for name in ("data_path", "pretrained_weights") if options.get(name)}
    config = TrainConfig(**{**options, **paths, "device": "auto"})
    store = open_store(data_path or config.data_path)
    if partition not in store.partitions or store.partitions[partition].num_images == 0:
        raise DataError(f"{store.path}: partition {partition!r} is empty; choose another with --partition")
    names = store.label_names(fine=config.use_fine_grained_labels)
    parameters = load_tensors(folder.best)[0]["parameters"]
    # No weights are fetched: whatever the vector of parameters lacks is in the run folder too.
    module = MODELS[config.model](
        config.model_type, len(names), pretrained=config.pretrained, weights=None, seed=config.seed
    )
    module.load_state_dict(load_tensors(folder.fixed)[0], strict=False)
    device = config.torch_device()
    with thread_backend(module, device, config.num_threads) as backend, torch.inference_mode():
        scores = score_partition(
            parameters.to(device),
            store.partitions[partition],
            backend=backend,
            num_labels=len(names),
            fine=config.use_fine_grained_labels,
            image_size=config.image_size,
            batch_size=config.central_eval_batch_size,
        )
    metrics = scores.metrics()
    labels = named_label_average_precision(scores.logits, scores.targets, names)
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
