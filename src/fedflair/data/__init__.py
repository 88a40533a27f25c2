"""Datasets: reading FLAIR in every form there is, the packed store, and clients over it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedflair.data.clients.dataset import Dataset


def open(path: str | Path) -> Dataset:
    """The packed store at ``path`` for people with their own code; see ``fedflair.data.clients.dataset``.

    Raises DataError where there is no store that can be read.
    """
    # Here, so that importing a room of data does not load the clients.
    from fedflair.data.clients.dataset import open_dataset

    return open_dataset(path)
