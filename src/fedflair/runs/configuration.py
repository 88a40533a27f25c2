"""The configuration that a run was started with: to score its models, or to go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedflair.config.options import build_config
from fedflair.config.train_config import NAMES, TrainConfig
from fedflair.errors import ConfigError, DataError
from fedflair.runs.folder import RunFolder, read_config
from fedflair.runs.more_rounds import check_more_rounds
from fedflair.runs.provenance import FREE, PLACES, ROUNDS, Provenance, read_provenance


def config_of_run(folder: RunFolder) -> TrainConfig:
    """The configuration of the run in ``folder``, to be scored on whatever device this machine has.

    Raises DataError where it was changed since the run started.
    """
    provenance = read_provenance(folder)
    options = {**_options(folder, provenance), "device": "auto", "wandb_project_id": None}
    config = build_config(options, str(folder.config))
    if provenance is not None:
        provenance.check_options(config, folder)
    return config


def config_to_resume(given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of the run that the option ``run`` names, with the options ``given`` beside it.

    Raises ConfigError, naming the option, where that would be another run.
    """
    if given.get("run") is None:
        raise ConfigError("resume: name the run's folder with --run")
    folder = RunFolder(Path(given["run"]))
    config = build_config({**_options(folder, read_provenance(folder)), **given}, str(folder.config))
    check_same_run(config, folder)
    return config


def check_same_run(config: TrainConfig, folder: RunFolder) -> None:
    """Raises ConfigError, naming the option, where the run in ``folder`` cannot be continued as ``config``."""
    before = config_of_run(folder)
    if config.option(ROUNDS) > before.option(ROUNDS):
        check_more_rounds(before, config.option(ROUNDS), folder)
        before = before.changed(**{ROUNDS: config.option(ROUNDS)})
    # An earlier version's run has no fingerprint of its store to guard a change of place by.
    free = FREE + PLACES if folder.provenance.is_file() else (*FREE, "run")
    for name in NAMES:
        if name not in free and config.option(name) != before.option(name):
            raise ConfigError(
                f"{name}: {config.option(name)} differs from {before.option(name)} of the run in {folder.path}; "
                "drop the option, or start a new run"
            )


def require_store(config: TrainConfig) -> None:
    """Raises DataError where the store of a run that is returned to is not where it was."""
    if not config.data.data_path.is_file():
        raise DataError(
            f"{config.data.data_path}: the run's store is not there; if it was moved, name its place with --data_path"
        )


def _options(folder: RunFolder, provenance: Provenance | None) -> dict[str, Any]:
    """Those in ``config.yaml``, with the number of rounds that holds where a kill left an earlier one there."""
    options = {name: value for name, value in read_config(folder).items() if name in NAMES}
    if provenance is not None and options.get(ROUNDS) in provenance.totals:
        options[ROUNDS] = provenance.totals[-1]
    return options
