"""How far a command is, for whoever watches it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from fedflair.system.console import Console
from fedflair.system.terminal import cell

T = TypeVar("T")
_ITEMS_PER_UPDATE = 256


def track(items: Iterator[T], total: int | None) -> Iterator[T]:
    """The same items, with a progress bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("images", total=total)
        for number, item in enumerate(items):
            if number % _ITEMS_PER_UPDATE == 0:
                progress.update(task, completed=number)
            yield item


@dataclass(frozen=True)
class TransferBars:
    """A bar for each file that is under way, and one for all of them together."""

    progress: Progress
    total: TaskID

    def start(self, size: int | None) -> None:
        """From here on they are drawn. size: bytes of all files, None where unknown."""
        self.progress.update(self.total, total=size, visible=size is not None)
        self.progress.start()

    def add(self, name: str, size: int | None) -> Callable[[int], None]:
        """A file's bar, seen while the file is under way; returns what to call with the bytes that are there."""
        task = self.progress.add_task(cell(name), total=size, visible=False)
        last = 0

        def report(there: int) -> None:
            nonlocal last
            self.progress.update(task, completed=there, visible=size is None or there < size)
            self.progress.advance(self.total, there - last)
            last = there

        return report


@contextmanager
def transfer_bars(console: Console) -> Iterator[TransferBars]:
    """Bars on a terminal, nothing elsewhere; they end with the block."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    try:
        yield TransferBars(progress, progress.add_task("all files", total=None, visible=False))
    finally:
        progress.stop()
