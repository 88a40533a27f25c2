"""A recorder of the order in which files are synced and take their names, which no killed process can show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def recorded_writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The calls of fsync and rename inside the block, as ``fsync NAME`` and ``rename FROM TO``, by the last of a path.

    A sync of a file after which the file grew again counts as none.
    """
    order: list[str] = []
    sizes: dict[str, int] = {}

    def name_of(descriptor: int) -> Path:
        return Path(f"/proc/self/fd/{descriptor}").readlink()

    real = {name: getattr(os, name) for name in ("fsync", "replace", "rename")}

    def fsync(file: Any) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        real["fsync"](descriptor)
        path = name_of(descriptor)
        sizes[path.name] = path.stat().st_size if path.is_file() else 0
        order.append(f"fsync {path.name}")

    def moved(source: Any, target: Any, name: str) -> None:
        path = Path(source)
        if path.is_file() and sizes.get(path.name) not in (None, path.stat().st_size):
            order.append(f"unsynced {path.name}")
        real[name](source, target)
        order.append(f"rename {path.name} {Path(target).name}")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "replace", lambda source, target: moved(source, target, "replace"))
        patch.setattr(os, "rename", lambda source, target: moved(source, target, "rename"))
        yield order
