"""A run: trained, gone on with, or opened; its numbers and its models."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedflair.api.checked import checked, path_of
from fedflair.api.predictions import Predictions
from fedflair.api.rows import Rows
from fedflair.api.trained import PartitionName, TrainedModel
from fedflair.config.options import unknown_option
from fedflair.config.train_config import NAMES, TrainConfig
from fedflair.errors import ConfigError
from fedflair.evaluation.opened import open_run as open_model
from fedflair.privacy.accounting import shown
from fedflair.runs.configuration import config_of_run, config_to_resume
from fedflair.runs.environment import read_environment
from fedflair.runs.folder import RunFolder, read_config, read_label_ap, read_rows, read_summary
from fedflair.system.terminal import cell, one_line
from fedflair.training.callback import Callback
from fedflair.training.train import train as train_run

CheckpointName = Literal["best", "last"]


@dataclass(frozen=True, repr=False)
class Run:
    """A run folder, finished or not; everything is read from it when it is asked for. path: the folder."""

    path: Path

    @property
    def config(self) -> TrainConfig:
        """What it was started with. Raises DataError where that was changed since."""
        return config_of_run(self._folder)

    @property
    def metrics(self) -> Rows:
        """A row of numbers for each round so far; ``.frame()`` is a pandas frame of them."""
        return Rows(tuple(read_rows(self._folder)), "rounds")

    @property
    def is_finished(self) -> bool:
        """Whether it has come to its end, and has a summary."""
        return self._folder.summary.is_file()

    @property
    def summary(self) -> dict[str, Any]:
        """Scores of the best model on val and test, and what is promised of privacy; DataError before the end."""
        return read_summary(self._folder)

    @property
    def label_ap(self) -> dict[str, float | None]:
        """AP on test by label, None without positives; empty before the end."""
        return read_label_ap(self._folder)

    @property
    def environment(self) -> list[Mapping[str, Any]]:
        """What made it, an entry each time that it was begun or gone on with."""
        return list(read_environment(self._folder))

    def model(self, checkpoint: CheckpointName = "best") -> TrainedModel:
        """The model that was best on val, or that of the last round saved.

        Raises DataError where there is none yet or the folder is damaged, ConfigError where its network cannot be made.
        """
        opened = open_model(self.path, checked(_of_checkpoint, {"checkpoint": checkpoint})["checkpoint"])
        return TrainedModel(opened.model(), opened)

    def predict(
        self,
        *photographs: str | Path,
        partition: PartitionName | None = None,
        data_path: str | Path | None = None,
        checkpoint: CheckpointName = "best",
    ) -> Predictions:
        """What the model says of photographs; see ``TrainedModel.predict``."""
        return self.model(checkpoint).predict(*photographs, partition=partition, data_path=data_path)

    @property
    def _folder(self) -> RunFolder:
        return RunFolder(self.path)

    def _facts(self) -> dict[str, str]:
        """What it is, for people; of a damaged folder as much as can be read."""
        rows, options = read_rows(self._folder), read_config(self._folder)
        facts = {"rounds": f"{rows[-1]['round'] if rows else 0:,} of {options.get('central_num_iterations', 0):,}"}
        if not self.is_finished:
            return {**facts, "state": "not finished"}
        summary = self.summary
        facts = {"setting": str(summary["setting"]), **facts}
        macro_ap = summary["test"].get("macro_ap")
        facts["test macro AP"] = "-" if macro_ap is None else f"{macro_ap:.4f}"
        told = shown.cell(summary["privacy"], summary.get("local_privacy"))
        return facts if told == "-" else {**facts, "epsilon": told}

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"Run({one_line(str(self.path))!r}: {one_line(found)})"

    def _repr_html_(self) -> str:
        """For a notebook: what it is, with what its epsilon's marks mean."""
        facts = {"run": str(self.path), **self._facts()}
        summary = self.summary if self.is_finished else {}
        notes = shown.legend(summary.get("privacy"), summary.get("local_privacy"))
        rows = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts.items())
        return f"<table><tbody>{rows}</tbody></table>" + "".join(f"<p>{_text(note)}</p>" for note in notes)


def train(config: TrainConfig, *, callback: Callback | None = None, quiet: bool = False) -> Run:
    """Trains as ``fedflair train`` does, in this process, and returns the finished run.

    callback: called after each round with a ``RoundDone``; where it returns True, the run ends with the next round that
    is scored. What it raises ends the run at once, with a checkpoint of the round, and comes out here.
    quiet: nothing is said on stderr.
    Raises Interrupted, with a checkpoint, at Ctrl-C; ConfigError, DataError, PrivacyError for what cannot be trained.
    """
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"config: {type(config).__name__} is no configuration; make one with fedflair.load_config")
    _check_callback(callback)
    return Run(train_run(config, callback=callback, quiet=quiet))


def resume(run: Run | str | Path, *, callback: Callback | None = None, quiet: bool = False, **options: Any) -> Run:
    """Goes on with a run from its last checkpoint, as ``fedflair train --resume`` does.

    options: what may change under way (docs/training_further.md): where things are, how fast it computes, and more
    rounds. callback, quiet: as of ``train``, whose errors come from here too.
    """
    _check_callback(callback)
    for name in options:
        if name not in NAMES:
            raise ConfigError(unknown_option(name))
    place = run.path if isinstance(run, Run) else path_of("run", run)
    config = config_to_resume({**options, "run": place, "resume": True})
    return Run(train_run(config, callback=callback, quiet=quiet))


def open_run(path: str | Path) -> Run:
    """The run in a folder, finished or not. Raises DataError where there is none, or its files are damaged."""
    run = Run(path_of("path", path))
    # Told here, rather than where a number is first asked for.
    read_config(RunFolder(run.path))
    return run


def _check_callback(callback: object) -> None:
    if callback is not None and not callable(callback):
        raise ConfigError(f"callback: {type(callback).__name__} cannot be called; give a function of a RoundDone")


def _of_checkpoint(*, checkpoint: CheckpointName) -> None:
    """What ``Run.model`` takes, by type."""


def _text(text: str) -> str:
    return html.escape(cell(text))
