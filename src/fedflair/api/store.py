"""A store for people's own code, by the name that the package exports."""

from __future__ import annotations

from pathlib import Path

from fedflair.api.checked import path_of
from fedflair.data.clients.dataset import Dataset, open_dataset


def open_store(path: str | Path) -> Dataset:
    """The packed store at ``path``: users, their photographs as torch datasets, selections of both (docs/data.md).

    Raises DataError where there is no store that can be read.
    """
    return open_dataset(path_of("path", path))
