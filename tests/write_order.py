"""The order in which a folder's files are synced and take their names, which no killed process can show.

What a machine that loses its power keeps is what was synced; so a file is synced before it takes its name, its folder
after that, and whatever refers to another file takes its name after that one was synced.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch


@dataclass
class Event:
    """kind: ``fsync`` or ``replace``. path: what was synced, or the name that was taken.

    unsynced: files of the folder that held something then which no fsync had covered.
    """

    kind: str
    path: Path
    unsynced: set[str]


@dataclass
class WriteOrder:
    """What was done in ``folder``, in order."""

    folder: Path
    events: list[Event] = field(default_factory=list)
    _synced: dict[int, tuple[int, int]] = field(default_factory=dict)

    def names(self, kind: str = "replace") -> list[str]:
        return [event.path.name for event in self.events if event.kind == kind]

    def taken(self, name: str) -> list[Event]:
        return [event for event in self.events if event.kind == "replace" and event.path.name == name]

    def check(self, later: str = "") -> None:
        """Every file was synced when it took its name, and its folder afterwards. later: a folder not looked at."""
        for position, event in enumerate(self.events):
            if event.kind == "replace" and later not in event.path.parts:
                assert event.path.name not in event.unsynced, f"{event.path} was not synced"
                after = [e.path for e in self.events[position + 1 :] if e.kind == "fsync"]
                assert event.path.parent in after, f"the folder of {event.path} was not synced"

    def note(self, kind: str, path: Path) -> None:
        unsynced = set()
        for file in self.folder.rglob("*"):
            if file.is_file():
                facts = file.stat()
                if self._synced.get(facts.st_ino) != (facts.st_size, facts.st_mtime_ns):
                    unsynced.add(file.name)
        self.events.append(Event(kind, path, unsynced))

    def sync(self, descriptor: int) -> None:
        facts, path = os.fstat(descriptor), Path(f"/proc/self/fd/{descriptor}").readlink()
        self._synced[facts.st_ino] = (facts.st_size, facts.st_mtime_ns)
        if self.folder in (path, *path.parents):
            self.note("fsync", path)


@contextmanager
def write_order(folder: Path) -> Iterator[WriteOrder]:
    """Watches what this process syncs and renames in ``folder``, all of which is really done."""
    order, fsync, replace = WriteOrder(folder.absolute()), os.fsync, os.replace

    def watched_fsync(descriptor: int) -> None:
        fsync(descriptor)
        order.sync(descriptor)

    def watched_replace(source: str | Path, target: str | Path) -> None:
        replace(source, target)
        path = Path(target).absolute()
        if order.folder in path.parents:
            order.note("replace", path)

    with patch("os.fsync", watched_fsync), patch("os.replace", watched_replace):
        yield order
