"""What a download consists of, whatever the source; and the record of it that lies in its folder."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedflair.data.download.transfer import Check, Patience, Report
from fedflair.errors import ConfigError, DataError

MANIFEST = "download.json"


@dataclass(frozen=True)
class Request:
    """What is asked for: the options of ``fedflair download``, which explains them.

    Raises ConfigError, naming the option, where they are impossible.
    """

    output: Path
    source: Literal["huggingface", "apple"] = "huggingface"
    raw: bool = False
    labels_only: bool = False
    num_users: int | None = None
    seed: int = 0
    unpack: bool = False
    endpoint: str | None = None
    base_url: str | None = None
    revision: str | None = None
    num_connections: int = 8

    def __post_init__(self) -> None:
        for option, source in (
            ("raw", "apple"),
            ("unpack", "apple"),
            ("base_url", "apple"),
            ("endpoint", "huggingface"),
            ("revision", "huggingface"),
        ):
            if getattr(self, option) and self.source != source:
                raise ConfigError(f"{option}: only together with --from {source}")
        if self.num_users is not None and self.num_users < 1:
            raise ConfigError(f"num_users: {self.num_users} is less than 1")
        if self.num_users is not None and self.labels_only:
            raise ConfigError("num_users: not together with --only labels, which takes all users")
        if self.num_connections < 1:
            raise ConfigError(f"num_connections: {self.num_connections} is less than 1")


@dataclass(frozen=True)
class Item:
    """One file of a download.

    name: its path within the output folder.
    size: bytes, None where the server does not say.
    check: looks at the complete file; None where its size is all there is to check.
    finish: what becomes of the file when it is there; it may remove it. Returns what the manifest records of that.
    """

    name: str
    url: str
    size: int | None
    check: Check | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[Path], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Plan:
    """A source's download.

    where: the server and revision, for people and for the manifest.
    size: bytes that will come, None where unknown. disk: bytes that the disk must have room for, None where unknown.
    images: what kind of images, for people. run: does it.
    """

    where: dict[str, str]
    size: int | None
    disk: int | None
    images: str
    run: Callable[[], None]


def _silent(_name: str, _size: int | None) -> Report:
    return lambda _there: None


@dataclass(frozen=True)
class Watcher:
    """Whom a download tells what it does; nobody, where nothing is given.

    tell: takes a line for people.
    announce: takes the plan before anything is fetched. confirm: is asked next, and raises Interrupted for a no.
    start: takes the bytes that will come, None where unknown, as the first file is about to.
    bar: (name, size) of a file -> what to call with the bytes of it that are there. done: (name, size) of a whole one.
    """

    tell: Callable[[str], None] = lambda line: None
    announce: Callable[[Plan], None] = lambda plan: None
    confirm: Callable[[], None] = lambda: None
    start: Callable[[int | None], None] = lambda size: None
    bar: Callable[[str, int | None], Report] = _silent
    done: Callable[[str, int], None] = lambda name, size: None


class Manifest:
    """``download.json`` in the output folder: where its files come from and which are complete.

    Written anew, whole, after each file. ``files``: name -> what is known of a complete file.
    """

    def __init__(self, output: Path) -> None:
        self._path = output / MANIFEST
        self._lock = threading.Lock()
        try:
            self._content: dict[str, Any] = json.loads(self._path.read_text())
        except FileNotFoundError:
            self._content = {}
        except (OSError, ValueError) as error:
            raise DataError(f"{self._path}: damaged; remove it to have the files beside it checked anew") from error
        if not isinstance(self._content, dict) or not isinstance(self._content.setdefault("files", {}), dict):
            raise DataError(f"{self._path}: damaged; remove it to have the files beside it checked anew")

    @property
    def revision(self) -> str | None:
        """The revision that an earlier run has settled on."""
        where = self._content.get("where", {})
        return where.get("revision") if isinstance(where, dict) else None

    def settle(self, selection: dict[str, Any], where: dict[str, str]) -> None:
        """Records what the folder holds. Raises ConfigError where it holds something else already."""
        known = self._content.get("selection", selection)
        if known != selection:
            raise ConfigError(
                f"output: {self._path.parent} holds a download of {_words(known)}, not of {_words(selection)}; "
                "choose another folder"
            )
        if self._content.get("where", where) != where:
            self._content["files"] = {}
        self._write(selection=selection, where=where)

    def entry(self, name: str) -> dict[str, Any] | None:
        entry = self._content["files"].get(name)
        return entry if isinstance(entry, dict) else None

    def add(self, name: str, entry: dict[str, Any]) -> None:
        with self._lock:
            self._content["files"][name] = entry
            self._write()

    def _write(self, **changes: Any) -> None:
        self._content.update(changes)
        temporary = self._path.with_name(f".{MANIFEST}.partial")
        with temporary.open("w") as file:
            json.dump(self._content, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)


@dataclass(frozen=True)
class Tools:
    """What a source needs to reach its server. fetch: fetches several items at once and returns when all are there."""

    patience: Patience
    stop: threading.Event
    manifest: Manifest
    fetch: Callable[[list[Item]], None]
    bar: Callable[[str, int | None], Report]


def _words(selection: dict[str, Any]) -> str:
    users = f"{selection.get('num_users')} users (seed {selection.get('seed')})"
    kind = "full-size" if selection.get("raw") else "small"
    return f"{users if selection.get('num_users') else 'all users'}, {kind} images, from {selection.get('source')}"


def choose_users(partition_of: Mapping[str, str], num_users: int, seed: int) -> set[str]:
    """``num_users`` of the users, by seed, with each partition keeping its share, and at least one where there is room.

    partition_of: user -> partition. The order in which users come does not matter.
    Raises ConfigError where there are not so many.
    """
    # Here, because it loads torch, which only a download of some users needs.
    from fedflair.sampling import stream

    if not 1 <= num_users <= len(partition_of):
        raise ConfigError(f"num_users: {num_users} is not between 1 and the {len(partition_of):,} users there are")
    users: dict[str, list[str]] = {}
    for user in sorted(partition_of):
        users.setdefault(partition_of[user], []).append(user)
    names = sorted(users, key=lambda name: (-len(users[name]), name))
    quotas = [len(users[name]) * num_users / len(partition_of) for name in names]
    counts = [max(int(quota), 1) for quota in quotas]
    while sum(counts) > num_users:  # of equal counts the last, which is the smallest partition's
        counts[max(range(len(counts)), key=lambda i: (counts[i], i))] -= 1
    while sum(counts) < num_users:
        counts[max(range(len(counts)), key=lambda i: (quotas[i] - counts[i], -i))] += 1
    chosen: set[str] = set()
    for name, count in zip(names, counts):
        order = stream(seed, "download users", client=name).permutation(len(users[name]))[:count]
        chosen.update(users[name][i] for i in order.tolist())
    return chosen
