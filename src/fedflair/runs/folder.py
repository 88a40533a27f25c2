"""The run folder: what is where in it, and how it is made and read.

runs/NAME/
    config.yaml            every option, resolved
    metrics.jsonl, .csv    one row a round; in private runs it names the numbers that epsilon does not cover
    tensorboard/           the same numbers as events
    checkpoints/           last, best and fixed tensors, as safetensors
    privacy_ledger.jsonl   what was released, round by round (private runs)
    wandb/                 the same rows for Weights & Biases (--wandb_project_id)
    summary.json           written once, at the end; label_ap.json: AP on test of each label
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError, DataError
from fedflair.system.files import disk_errors, write_atomically


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def csv(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def events(self) -> Path:
        return self.path / "tensorboard"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def label_ap(self) -> Path:
        return self.path / "label_ap.json"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def fixed(self) -> Path:
        return self.path / "checkpoints" / "fixed.safetensors"


def create_run(config: TrainConfig) -> RunFolder:
    """A new run folder with its ``config.yaml``; refuses one that already holds a run."""
    name = f"{config.setting.replace(' + ', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = RunFolder(config.run.run or Path("runs") / name)
    if folder.config.exists():
        raise ConfigError(f"run: {folder.path} already holds a run; continue it with --resume or name another folder")
    with disk_errors(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    options = {k: v for k, v in config.as_dict().items() if k not in ("run", "resume")}
    write_atomically(folder.config, yaml.safe_dump(options, sort_keys=False))
    return folder


def read_config(folder: RunFolder) -> dict[str, Any]:
    """The options in a run's ``config.yaml``."""
    if not folder.config.is_file():
        raise DataError(f"{folder.config}: no such file; {folder.path} is not a run folder")
    options = yaml.safe_load(folder.config.read_text())
    if not isinstance(options, dict):
        raise DataError(f"{folder.config}: not a mapping of options; the run folder is damaged")
    return options


def read_rows(folder: RunFolder) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``; a last line that a kill cut short is left out."""
    if not folder.metrics.is_file():
        return []
    rows = []
    lines = folder.metrics.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise DataError(f"{folder.metrics}: line {number} is not JSON; the run folder is damaged") from error
    return rows


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """The run's ``summary.json``."""
    try:
        summary: dict[str, Any] = json.loads(folder.summary.read_text())
    except FileNotFoundError as error:
        raise DataError(f"{folder.summary}: no such file; the run has not ended (continue it with --resume)") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{folder.summary}: not JSON; the run folder is damaged") from error
    return summary
