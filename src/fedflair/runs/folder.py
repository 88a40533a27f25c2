"""The run folder: what is where in it, and how it is made and read.

runs/NAME/
    config.yaml            every option, resolved
    provenance.json        what the run belongs to: options, the store's fingerprint, the labels in the model's order
    environment.json       what made it, an entry each time it was begun or gone on with: command, versions, machine
    metrics.jsonl, .csv    one row a round; in private runs it names the numbers that epsilon does not cover
    tensorboard/           the same numbers as events
    checkpoints/           last, previous, best and fixed tensors, as safetensors
    privacy_ledger.jsonl   what was released, round by round (private runs; closed to others)
    failures.txt           errors that name a client of a secret cohort (private runs; closed to others)
    wandb/                 the same rows for Weights & Biases (--wandb_project_id)
    summary.json           written once, at the end; label_ap.json: AP on test of each label
    test_details.json      AP on test with groups of users left out, and the photographs in which the model is surest
    .lock                  held by the process that writes the folder
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedflair.config.train_config import TrainConfig
from fedflair.config.yaml_text import read_yaml
from fedflair.errors import ConfigError, DataError
from fedflair.runs import shapes
from fedflair.system.files import disk_errors, sync_file, write_atomically
from fedflair.system.json_text import parse_json, read_json, read_text
from fedflair.system.locks import Held, locked

DAMAGED = "the run folder is damaged: put the file back from a copy, or train again in another folder"


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

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
    def test_details(self) -> Path:
        return self.path / "test_details.json"

    @property
    def failures(self) -> Path:
        return self.path / "failures.txt"

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.safetensors"

    @property
    def previous(self) -> Path:
        return self.path / "checkpoints" / "previous.safetensors"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def fixed(self) -> Path:
        return self.path / "checkpoints" / "fixed.safetensors"


def new_run(config: TrainConfig) -> RunFolder:
    """Where the run of ``config`` will be; nothing is written. Refuses (ConfigError) a place that holds a run."""
    name = f"{config.setting.replace(' + ', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = RunFolder(config.run.run or Path("runs") / name)
    _refuse_used(folder)
    return folder


@contextmanager
def writing(folder: RunFolder) -> Iterator[None]:
    """Holds the run folder, which is made where it is missing, for this process alone.

    Raises DataError, naming the process, where another one writes it.
    """
    with ExitStack() as stack:
        with disk_errors(folder.path):
            folder.path.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(locked(folder.path / ".lock"))
            except Held as error:
                who = "another process" if error.pid is None else f"process {error.pid}"
                raise DataError(
                    f"{folder.path}: {who} is writing this run folder; wait until it has ended, or name another folder"
                ) from error
        yield


def write_config(folder: RunFolder, config: TrainConfig) -> None:
    """Makes the folder that of a run, by its ``config.yaml``. Raises ConfigError where it holds a run already."""
    _refuse_used(folder)
    _write_config(folder, config)


def go_further(folder: RunFolder, config: TrainConfig) -> None:
    """Writes ``config.yaml`` anew, with more rounds, and drops what was written at the end of fewer."""
    with disk_errors(folder.path):
        for file in (folder.summary, folder.label_ap):
            file.unlink(missing_ok=True)
    _write_config(folder, config)


def _write_config(folder: RunFolder, config: TrainConfig) -> None:
    options = {k: v for k, v in config.as_dict().items() if k not in ("run", "resume", "resume_from")}
    write_atomically(folder.config, yaml.safe_dump(options, sort_keys=False))


def _refuse_used(folder: RunFolder) -> None:
    if folder.config.exists():
        raise ConfigError(f"run: {folder.path} already holds a run; continue it with --resume or name another folder")


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


def seal_rows(folder: RunFolder, num_rounds: int) -> str:
    """Puts the rows written so far on the disk; returns the digest of the first ``num_rounds`` of them."""
    if not folder.metrics.is_file():
        return _digest([])
    with disk_errors(folder.metrics):
        sync_file(folder.metrics)
        return _digest(folder.metrics.read_bytes().splitlines(keepends=True)[:num_rounds])


def cut_rows(folder: RunFolder, num_rounds: int) -> None:
    """Drops the rows of rounds after ``num_rounds``; what is kept stays as it was written, byte for byte."""
    kept = len([row for row in read_rows(folder) if row["round"] <= num_rounds])
    with disk_errors(folder.metrics):
        lines = folder.metrics.read_bytes().splitlines(keepends=True) if kept else []
    write_atomically(folder.metrics, b"".join(lines[:kept]))


def _digest(lines: list[bytes]) -> str:
    return hashlib.sha256(b"".join(lines)).hexdigest()


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


def read_test_details(folder: RunFolder) -> dict[str, Any]:
    """``left_out`` and ``examples`` (``shapes.test_details_problem``); empty where there are none yet."""
    if not folder.test_details.is_file():
        return {}
    found: dict[str, Any] = read_json(folder.test_details, DAMAGED)
    _check(found, shapes.test_details_problem, folder.test_details)
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
