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

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedflair.config.train_config import TrainConfig
from fedflair.config.yaml_text import read_yaml
from fedflair.errors import ConfigError, DataError
from fedflair.runs import shapes
from fedflair.system.files import disk_errors, write_atomically
from fedflair.system.json_text import parse_json, read_json, read_text

DAMAGED = "the run folder is damaged: put the file back from a copy, or train again in another folder"


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
    """The options in a run's ``config.yaml``, each one value or a list of values. Raises DataError for other things."""
    if not folder.config.is_file():
        raise DataError(f"{folder.config}: no such file; {folder.path} is not a run folder")
    try:
        options: dict[str, Any] = read_yaml(folder.config)
    except ValueError as error:
        raise DataError(f"{folder.config}: not YAML ({error}); {DAMAGED}") from error
    _check(options, shapes.config_problem, folder.config)
    return options


def read_rows(folder: RunFolder) -> list[dict[str, Any]]:
    """The rows of ``metrics.jsonl``; a last line that a kill cut short is left out."""
    return read_lines(folder.metrics, shapes.row_problem) if folder.metrics.is_file() else []


def read_summary(folder: RunFolder) -> dict[str, Any]:
    """The run's ``summary.json``."""
    if not folder.summary.exists():
        raise DataError(f"{folder.summary}: no such file; the run has not ended (continue it with --resume)")
    summary: dict[str, Any] = read_json(folder.summary, DAMAGED)
    _check(summary, shapes.summary_problem, folder.summary)
    return summary


def read_label_ap(folder: RunFolder) -> dict[str, float | None]:
    """AP on test by the label's name; empty where the run has not ended."""
    if not folder.label_ap.is_file():
        return {}
    found: dict[str, float | None] = read_json(folder.label_ap, DAMAGED)
    _check(found, shapes.label_ap_problem, folder.label_ap)
    return found


def read_users(folder: RunFolder) -> dict[str, list[dict[str, Any]]]:
    """By partition, a row of each user that ``evaluate --per_user`` scored."""
    return {
        file.stem.removeprefix("per_user_"): read_lines(file, shapes.user_problem)
        for file in sorted(folder.path.glob("per_user_*.jsonl"))
    }


def read_lines(path: Path, problem: Callable[[Any], str]) -> list[dict[str, Any]]:
    """The lines of a file of JSON lines; the last one is left out where it has no end, as a kill leaves it.

    problem: says what is wrong with the value of a line. Raises DataError, naming the line, where something is.
    """
    try:
        *lines, torn = read_text(path).split("\n")
    except ValueError as error:
        raise DataError(f"{path}: {error}; {DAMAGED}") from error
    rows = []
    for number, line in enumerate(lines if _is_cut(torn) else [*lines, torn], 1):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number} is {error}; {DAMAGED}") from error
        _check(row, problem, f"{path}: line {number}")
        rows.append(row)
    return rows


def _is_cut(line: str) -> bool:
    """Whether a line without an end is the beginning of one; whole lines and what never was one are not."""
    try:
        parse_json(line)
    except ValueError:
        return not line or line.startswith("{")
    return False


def _check(value: Any, problem: Callable[[Any], str], where: Path | str) -> None:
    if wrong := problem(value):
        raise DataError(f"{where}: {wrong}; {DAMAGED}")
