"""Small training runs for the tests of every room: seconds each, over the tiny store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fedflair.config.effects import has_effect
from fedflair.config.train_config import TrainConfig
from fedflair.runs.folder import RunFolder, read_rows


def small_config(store: Path, **options: Any) -> TrainConfig:
    defaults: dict[str, Any] = {
        "data_path": store,
        "pretrained": False,
        "image_size": 32,
        "cohort_size": 3,
        "central_num_iterations": 4,
        "evaluation_frequency": 2,
        "central_lr_num_warmup_iterations": 0,
        "learning_rate": 0.05,
        "device": "cpu",
    }
    # What has no effect stays as it is, since the command line refuses it.
    if options.get("model") != "small_cnn":
        defaults["model_type"] = "squeezenet1_1"
    if options.get("dataset") == "flair_iid":
        defaults["mean_datapoints_per_user"] = 4
    return TrainConfig.of(**{**defaults, **options})


def command(config: TrainConfig, *more: str) -> list[str]:
    options = {k: v for k, v in config.as_dict().items() if v is not None and k != "resume" and has_effect(config, k)}
    return [
        sys.executable, "-m", "fedflair.cli", "train", *more,
        *(f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in options.items()),
    ]  # fmt: skip


def timeless_rows(run: Path) -> list[dict[str, Any]]:
    """The run's rows, less what the clock had a say in."""
    return [{k: v for k, v in row.items() if "second" not in k} for row in read_rows(RunFolder(run))]
