"""What a download consists of, whatever the source; and the record of it that lies in its folder."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fedflair.data.download.bounds import Bounds, check_bound
from fedflair.data.download.patience import Patience
from fedflair.data.download.transfer import UNBOUNDED, Check, Report
from fedflair.errors import ConfigError, DataError
from fedflair.system.files import disk_errors, write_atomically
from fedflair.system.json_text import parse_json
from fedflair.system.terminal import one_line

MANIFEST = "download.json"
_LARGEST_MANIFEST = 1 << 26


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
    send_token: bool = False
    min_rate: float = Patience.min_rate
    raise_limits: float = 1.0

    def __post_init__(self) -> None:
        for option, source in (
            ("raw", "apple"),
            ("unpack", "apple"),
            ("base_url", "apple"),
            ("endpoint", "huggingface"),
            ("revision", "huggingface"),
            ("send_token", "huggingface"),
        ):
            if getattr(self, option) and self.source != source:
                raise ConfigError(f"{option}: only together with --from {source}")
        if self.num_users is not None and self.num_users < 1:
            raise ConfigError(f"num_users: {self.num_users} is less than 1")
        if self.num_users is not None and self.labels_only:
            raise ConfigError("num_users: not together with --only labels, which takes all users")
        if self.num_connections < 1:
            raise ConfigError(f"num_connections: {self.num_connections} is less than 1")
        if not 0 <= self.min_rate < math.inf:
            raise ConfigError(f"min_rate: {self.min_rate:g} is no number of bytes a second; 0 waits for ever")
        if not 1 <= self.raise_limits <= 1e6:
            raise ConfigError(f"raise_limits: {self.raise_limits:g} is not between 1 and 1,000,000")


@dataclass(frozen=True)
class Item:
    """One file of a download.

    name: its path within the output folder.
    size: bytes, None where the server does not say. most: bytes that it can have.
    check: looks at the complete file; None where its size is all there is to check.
    finish: what becomes of the file when it is there; it may remove it. Returns what the manifest records of that.
    """

    name: str
    url: str
    size: int | None
    check: Check | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[Path], dict[str, Any]] | None = None
    most: int = UNBOUNDED

    def __post_init__(self) -> None:
        check_bound(self.size, self.most, one_line(self.url), "bytes")


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
        self._content = self._read()

    def _read(self) -> dict[str, Any]:
        with disk_errors(self._path):
            if not self._path.exists():
                return {"files": {}}
            sound = self._path.is_file() and self._path.stat().st_size <= _LARGEST_MANIFEST
            text = self._path.read_bytes() if sound else b""
        try:
            content = parse_json(text.decode())
        except ValueError:
            content = None
        if not _is_manifest(content):
            raise DataError(f"{self._path}: damaged; remove it to have the files beside it checked anew")
        return dict(content)

    @property
    def revision(self) -> str | None:
        """The revision that an earlier run has settled on."""
        revision = self._content.get("where", {}).get("revision")
        return revision if isinstance(revision, str) else None

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
        """What is known of a complete file, its ``size`` in bytes at least; None where it is not known to be."""
        entry: dict[str, Any] | None = self._content["files"].get(name)
        return entry

    def holds(self, name: str) -> bool:
        """Whether a file is known to be complete, and has the size on disk that it had then."""
        entry, path = self.entry(name), self._path.parent / name
        return entry is not None and path.is_file() and path.stat().st_size == entry["size"]

    def add(self, name: str, entry: dict[str, Any]) -> None:
        """Records a complete file, which must be on disk for good before."""
        with self._lock:
            self._content["files"][name] = entry
            self._write()

    def _write(self, **changes: Any) -> None:
        self._content.update(changes)
        write_atomically(self._path, json.dumps(self._content, indent=1, sort_keys=True))


def _is_manifest(content: Any) -> bool:
    if not isinstance(content, dict):
        return False
    files = content.setdefault("files", {})
    parts = [files, content.get("selection", {}), content.get("where", {})]
    return all(isinstance(part, dict) for part in parts) and all(
        isinstance(entry, dict) and type(entry.get("size")) is int for entry in files.values()
    )


@dataclass(frozen=True)
class Tools:
    """What a source needs to reach its server. fetch: fetches several items at once and returns when all are there."""

    patience: Patience
    bounds: Bounds
    stop: threading.Event
    manifest: Manifest
    fetch: Callable[[list[Item]], None]
    bar: Callable[[str, int | None], Report]


def _words(selection: dict[str, Any]) -> str:
    users = f"{selection.get('num_users')} users (seed {selection.get('seed')})"
    kind = "full-size" if selection.get("raw") else "small"
    every = "all users"
    return one_line(f"{users if selection.get('num_users') else every}, {kind} images, from {selection.get('source')}")


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
