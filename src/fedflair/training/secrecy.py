"""Errors of a private run: whom they name was in a secret cohort, so that is for the run's owner alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fedflair.errors import DataError, WorkerError
from fedflair.federated.setup import TrainingSetup
from fedflair.runs.folder import RunFolder
from fedflair.system.files import disk_errors
from fedflair.system.memory import shortage
from fedflair.training.round import is_private


@contextmanager
def closed_to_others(setup: TrainingSetup, folder: RunFolder, round_: int) -> Iterator[None]:
    """In a private run, writes errors of the work on a client into a file closed to others, and raises what is left.

    round_: rounds done. What is wrong with options, or with the machine, names nobody and passes as it is.
    """
    try:
        yield
    except (DataError, WorkerError) as error:
        if not (error.of_client and is_private(setup)):
            raise
        _write_down(folder, str(error))
        # Without its cause, which names the client too; of a want of memory it is told all the same what helps.
        raise type(error)(
            f"round {round_ + 1}: the work on a client failed; which client, why, and what to do is in "
            f"{folder.failures}, closed to others since the cohort is secret"
        ) from (None if shortage(error) is None else MemoryError())


def _write_down(folder: RunFolder, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    with disk_errors(folder.failures):
        descriptor = os.open(folder.failures, flags, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            os.fchmod(descriptor, 0o600)
            file.write(f"{text}\n")
