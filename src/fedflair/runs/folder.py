"""The run folder: configuration, metrics as JSONL, CSV and TensorBoard, summary, and what the terminal shows.

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

import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError, DataError
from fedflair.privacy.ledger import coverage
from fedflair.runs.weights_and_biases import wandb_run

Row = Mapping[str, float | int | None]


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
    folder = RunFolder(config.run or Path("runs") / name)
    if folder.config.exists():
        raise ConfigError(f"run: {folder.path} already holds a run; continue it with --resume or name another folder")
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


def write_atomically(path: Path, text: str) -> None:
    """Replaces ``path`` by ``text``, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.write_text(text)
    temporary.replace(path)


@dataclass
class Tracker:
    """Where a run's numbers go while it runs. private: rows name the numbers that no epsilon covers."""

    folder: RunFolder
    progress: Progress
    task: TaskID
    console: Console
    events: Any
    quiet_terminal: bool
    send: Callable[[Row], None]
    private: bool
    latest: dict[str, str] = field(default_factory=dict)

    def log(self, row: Row) -> None:
        """Records one round: a line of JSON, TensorBoard scalars, Weights & Biases, and the progress bar."""
        with self.folder.metrics.open("a") as file:
            file.write(json.dumps(coverage.marked(row) if self.private else row) + "\n")
        step = int(row["round"] or 0)
        for name, value in row.items():
            if name != "round" and value is not None:
                self.events.add_scalar(name, value, step)
        self.send(row)
        self.latest |= {name: f"{value:.4g}" for name, value in row.items() if value is not None}
        loss, macro_ap = self.latest.get("train/loss", "-"), self.latest.get("val/macro_ap", "-")
        rate = self.latest.get("train/images_per_second", "-")
        self.progress.update(self.task, completed=step, loss=loss, macro_ap=macro_ap, rate=rate)
        if self.quiet_terminal and "val/macro_ap" in row:
            self.console.print(f"round {step}: loss {loss}, val macro AP {macro_ap}", highlight=False)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def tracker(
    folder: RunFolder, *, num_rounds: int, start_round: int, private: bool = False, wandb_project_id: str | None = None
) -> Iterator[Tracker]:
    """Opens the run's logs, first dropping rows after ``start_round`` so that a resumed run repeats none.

    private: an epsilon is promised, so every number that it does not cover is marked.
    """
    from torch.utils.tensorboard import SummaryWriter

    rows = [row for row in read_rows(folder) if row["round"] <= start_round]
    write_atomically(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]round"),
        MofNCompleteColumn(),
        BarColumn(bar_width=None),
        TextColumn("loss {task.fields[loss]}  macro AP {task.fields[macro_ap]}  {task.fields[rate]} images/s"),
        TimeRemainingColumn(),
    )
    events = SummaryWriter(str(folder.path / "tensorboard"), purge_step=start_round + 1 if start_round else None)
    marks = {coverage.FIELD: coverage.WORDS} if private else {}
    for name, words in marks.items():
        events.add_text(name, words, start_round)
    try:
        wandb = (
            wandb_run(wandb_project_id, folder.path, {**read_config(folder), **marks})
            if wandb_project_id
            else nullcontext(_drop)
        )
        with wandb as send, Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("train", total=num_rounds, completed=start_round, loss="-", macro_ap="-", rate="-")
            yield Tracker(folder, progress, task, console, events, not sys.stderr.isatty(), send, private)
    finally:
        events.close()
        _write_csv(folder)


def _drop(row: Row) -> None:
    """Sends a row nowhere."""


def _write_csv(folder: RunFolder) -> None:
    rows = read_rows(folder)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with folder.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        writer.writerows({name: " ".join(v) if isinstance(v, list) else v for name, v in row.items()} for row in rows)
