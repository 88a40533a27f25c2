"""A run's numbers while it runs: JSON lines, CSV, TensorBoard, Weights & Biases, and what the terminal shows."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fedflair.privacy.ledger import coverage
from fedflair.runs.folder import RunFolder, cut_rows, read_config, read_rows
from fedflair.runs.json_text import dumps, strict
from fedflair.runs.weights_and_biases import wandb_run
from fedflair.system.console import Console
from fedflair.system.files import disk_errors, write_atomically

Row = Mapping[str, float | int | None]


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
        """Records one round: a line of JSON, TensorBoard scalars, Weights & Biases, and the progress bar.

        What is no number is null in JSON, and absent elsewhere.
        """
        row = strict(row)
        with disk_errors(self.folder.metrics), self.folder.metrics.open("a") as file:
            file.write(dumps(coverage.marked(row) if self.private else row) + "\n")
        step = int(row["round"] or 0)
        with disk_errors(self.folder.events):
            for name, value in row.items():
                if name != "round" and value is not None:
                    self.events.add_scalar(name, value, step)
        self.send(row)
        self.latest |= {name: f"{value:.4g}" for name, value in row.items() if value is not None}
        loss = self.latest.get("train/loss", self.latest.get("private/loss", "-"))
        macro_ap = self.latest.get("val/macro_ap", "-")
        rate = self.latest.get("train/images_per_second", "-")
        self.progress.update(self.task, completed=step, loss=loss, macro_ap=macro_ap, rate=rate)
        if self.quiet_terminal and "val/macro_ap" in row:
            self.console.say(f"round {step}: loss {loss}, val macro AP {macro_ap}")

    def log_test(self, metrics: Mapping[str, float], round_: int) -> None:
        """Sends the scores on test of the best model, which are no round's, to TensorBoard and Weights & Biases.

        round_: the last one, since both want values in order.
        """
        row = strict({f"test/{name}": value for name, value in metrics.items()})
        with disk_errors(self.folder.events):
            for name, value in row.items():
                if value is not None:
                    self.events.add_scalar(name, value, round_)
        self.send({"round": round_, **row})

    def say(self, text: str) -> None:
        self.console.say(text)


@contextmanager
def tracker(
    folder: RunFolder,
    *,
    num_rounds: int,
    start_round: int,
    private: bool = False,
    promise: str = "",
    wandb_project_id: str | None = None,
    quiet: bool = False,
) -> Iterator[Tracker]:
    """Opens the run's logs, first dropping rows after ``start_round`` so that a resumed run repeats none.

    private: an epsilon is promised, so every number that it does not cover is marked. promise: that epsilon in words.
    quiet: the terminal shows nothing.
    """
    from torch.utils.tensorboard import SummaryWriter

    cut_rows(folder, start_round)
    console = Console(stderr=True)
    console.quiet = quiet
    columns = (
        TextColumn("[bold]round"),
        MofNCompleteColumn(),
        BarColumn(bar_width=None),
        TextColumn("loss {task.fields[loss]}  macro AP {task.fields[macro_ap]}  {task.fields[rate]} images/s"),
        TimeRemainingColumn(),
    )
    with disk_errors(folder.events):
        events = SummaryWriter(str(folder.events), purge_step=start_round + 1 if start_round else None)
    marks = {coverage.FIELD: coverage.WORDS, "epsilon": promise} if private else {}
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
        with disk_errors(folder.events):
            events.close()
        _write_csv(folder)


def _drop(row: Row) -> None:
    """Sends a row nowhere."""


def _write_csv(folder: RunFolder) -> None:
    rows = read_rows(folder)
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=names)
    writer.writeheader()
    writer.writerows({name: " ".join(v) if isinstance(v, list) else v for name, v in row.items()} for row in rows)
    write_atomically(folder.csv, text.getvalue())
