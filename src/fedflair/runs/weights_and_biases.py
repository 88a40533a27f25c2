"""Metrics to Weights & Biases, the extra ``fedflair[wandb]``; ``WANDB_MODE=offline`` keeps them in the run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedflair.errors import ConfigError
from fedflair.system.files import write_atomically


def require_wandb() -> None:
    """Raises ConfigError where the package is not installed or does not import."""
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"wandb_project_id: needs the package wandb ({error}); pip install 'fedflair[wandb]', or drop the option"
        ) from error


@contextmanager
def wandb_run(
    project: str, folder: Path, options: Mapping[str, Any]
) -> Iterator[Callable[[Mapping[str, float | int | None]], None]]:
    """Opens the project's run that belongs to a run folder and yields what sends it one row of metrics.

    The id is drawn once and kept in ``wandb/id.txt``, so that a resumed run goes on in the same place; rows that were
    sent before are dropped there by their round. Raises ConfigError where Weights & Biases refuses (no login, no
    network).
    """
    import wandb

    home = folder / "wandb"
    id_file = home / "id.txt"
    if not id_file.is_file():
        # From the system's entropy: the name of a run at the service must not depend on the seed.
        write_atomically(id_file, os.urandom(6).hex())
    try:
        run = wandb.init(
            project=project,
            id=id_file.read_text(),
            name=folder.name,
            dir=str(folder),
            config=dict(options),
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )
    except wandb.errors.Error as error:
        raise ConfigError(
            f"wandb_project_id: Weights & Biases says: {error}; log in or set WANDB_MODE=offline, then continue with: "
            f"fedflair train --resume --run {folder}"
        ) from error
    finished = False

    def send(row: Mapping[str, float | int | None]) -> None:
        run.log({name: value for name, value in row.items() if value is not None}, step=int(row["round"] or 0))

    try:
        yield send
        finished = True
    finally:
        run.finish(exit_code=0 if finished else 1)
