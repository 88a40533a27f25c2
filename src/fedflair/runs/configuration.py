"""The configuration that a run was started with: to score its models, or to go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedflair.config.options import build_config
from fedflair.config.train_config import NAMES, TrainConfig
from fedflair.errors import ConfigError
from fedflair.runs.folder import RunFolder, read_config

# Where and how fast a run computes may change under way; its numbers may not.
FREE_ON_RESUME = (
    "run",
    "resume",
    "num_threads",
    "cuda_graphs",
    "device",
    "workers",
    "ray_address",
    "cpus_per_worker",
    "gpus_per_worker",
    "worker_timeout",
    "wandb_project_id",
)


def config_of_run(folder: RunFolder) -> TrainConfig:
    """The configuration of the run in ``folder``, to be scored on whatever device this machine has."""
    return build_config({**_options(folder), "device": "auto", "wandb_project_id": None}, str(folder.config))


def config_to_resume(given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of the run that the option ``run`` names, with the options ``given`` beside it.

    Raises ConfigError, naming the option, where that would be another run.
    """
    if given.get("run") is None:
        raise ConfigError("resume: name the run's folder with --run")
    folder = RunFolder(Path(given["run"]))
    config = build_config({**_options(folder), **given}, str(folder.config))
    check_same_run(config, folder)
    return config


def check_same_run(config: TrainConfig, folder: RunFolder) -> None:
    """Raises ConfigError, naming the option, where the run in ``folder`` cannot be continued as ``config``."""
    before = build_config(_options(folder), str(folder.config))
    for name in NAMES:
        if name not in FREE_ON_RESUME and config.option(name) != before.option(name):
            raise ConfigError(
                f"{name}: {config.option(name)} differs from {before.option(name)} of the run in {folder.path}; "
                "drop the option, or start a new run"
            )


def _options(folder: RunFolder) -> dict[str, Any]:
    return {name: value for name, value in read_config(folder).items() if name in NAMES}
