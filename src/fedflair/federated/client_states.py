"""What an algorithm keeps of each client between rounds (SCAFFOLD's control variates), in memory or on disk.

A state is written under the round that made it, and what a checkpoint may still need is never touched: a checkpoint of
round R sees the newest state of each client from the rounds before R, and what newer states replaced is deleted only
once two later checkpoints are in place. So a run that is killed at any instant resumes bit for bit, from the last
checkpoint or from the one before it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fedflair.federated.server import Tensors
from fedflair.runs.tensors import load_tensors, save_tensors, write_tensors
from fedflair.system.files import disk_errors, sync_file, sync_folder

CLIENTS_A_FOLDER = 1000


@dataclass(frozen=True)
class ClientStates:
    """get: (round, client id) -> its state from the rounds before; empty where there is none, or it was forgotten.

    put: (round, states by client id).
    save: (round), before a checkpoint of that round is written. prune: (round), after it was.
    digest: (round) -> what tells whose states, and of which rounds, a checkpoint of that round sees.
    """

    get: Callable[[int, str], Tensors]
    put: Callable[[int, Mapping[str, Tensors]], None]
    save: Callable[[int], None]
    prune: Callable[[int], None]
    digest: Callable[[int], str]


NO_STATES = ClientStates(
    get=lambda round_, client_id: {},
    put=lambda round_, states: None,
    save=lambda round_: None,
    prune=lambda round_: None,
    digest=lambda round_: "",
)


class Storage(Protocol):
    """Where versions are kept: states by (client's position, round)."""

    def versions(self, round_: int) -> Iterator[tuple[int, int]]:
        """What a checkpoint of ``round_`` can see, as (position, round); anything later is deleted."""

    def read(self, position: int, round_: int) -> Tensors: ...

    def write(self, position: int, round_: int, state: Tensors) -> None: ...

    def supersede(self, position: int, round_: int) -> None:
        """Checkpoints of the rounds to come do not need this version; the last one and the one before it may."""

    def save(self, round_: int, current: Mapping[int, int]) -> None:
        """Makes the versions ``current`` (position -> round) last, for a checkpoint of ``round_``."""

    def prune(self, round_: int) -> None:
        """Drops what neither the checkpoint of ``round_`` needs nor the one before it."""


def open_states(storage: Storage, client_ids: list[str], round_: int, max_clients: int | None) -> ClientStates:
    """The states as a checkpoint of ``round_`` left them.

    max_clients: most clients that are remembered. Whose state is oldest is forgotten first, and begins anew.
    """
    positions = {client_id: position for position, client_id in enumerate(client_ids)}
    current: dict[int, int] = {}
    fresh: dict[int, int] = {}
    settled = -1

    def settle(before: int) -> None:
        """Takes the states of the rounds before ``before`` as the newest, and forgets the oldest."""
        nonlocal settled
        if before <= settled:
            return
        settled = before
        # Whatever is fresh was put before ``before``: putting settles its own round.
        for position, written in fresh.items():
            if position in current:
                storage.supersede(position, current[position])
            current[position] = written
        fresh.clear()
        if max_clients is not None and len(current) > max_clients:
            oldest = sorted(current.items(), key=lambda item: (item[1], item[0]))
            for position, written in oldest[: len(current) - max_clients]:
                storage.supersede(position, written)
                del current[position]

    def get(round_: int, client_id: str) -> Tensors:
        settle(round_)
        position = positions[client_id]
        return storage.read(position, current[position]) if position in current else {}

    def put(round_: int, states: Mapping[str, Tensors]) -> None:
        settle(round_)
        for client_id, state in states.items():
            storage.write(positions[client_id], round_, state)
            fresh[positions[client_id]] = round_

    def save(round_: int) -> None:
        settle(round_)
        storage.save(round_, current)

    def prune(round_: int) -> None:
        settle(round_)
        storage.prune(round_)

    def digest(round_: int) -> str:
        settle(round_)
        return hashlib.sha256(repr(sorted(current.items())).encode()).hexdigest()

    for position, written in sorted(storage.versions(round_), key=lambda version: version[1]):
        if position in current:
            storage.supersede(position, current[position])
        current[position] = written
    settle(round_)
    return ClientStates(get, put, save, prune, digest)


class DiskStorage:
    """One safetensors file a version, complete or absent after a kill: ``folder/000/12.000007.safetensors``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unsynced: list[Path] = []
        # Since the last checkpoint, and between the two before it.
        self._superseded: list[Path] = []
        self._unneeded: list[Path] = []

    def versions(self, round_: int) -> Iterator[tuple[int, int]]:
        for path in list(self._folder.glob("*/*")):
            name = re.fullmatch(r"(\d+)\.(\d+)\.safetensors", path.name)
            if name is None or int(name[2]) >= round_:
                path.unlink()
            else:
                yield int(name[1]), int(name[2])

    def read(self, position: int, round_: int) -> Tensors:
        return load_tensors(self._path(position, round_))[0]

    def write(self, position: int, round_: int, state: Tensors) -> None:
        path = self._path(position, round_)
        write_tensors(path, state, {}, synced=False)
        self._unsynced.append(path)

    def supersede(self, position: int, round_: int) -> None:
        self._superseded.append(self._path(position, round_))

    def save(self, round_: int, current: Mapping[int, int]) -> None:
        with disk_errors(self._folder):
            for path in self._unsynced:
                sync_file(path)
            for folder in {path.parent for path in self._unsynced}:
                sync_folder(folder)
            if self._unsynced:
                sync_folder(self._folder)
        self._unsynced.clear()

    def prune(self, round_: int) -> None:
        for path in self._unneeded:
            path.unlink(missing_ok=True)
        self._unneeded, self._superseded = self._superseded, []

    def _path(self, position: int, round_: int) -> Path:
        return self._folder / f"{position // CLIENTS_A_FOLDER:03d}" / f"{position}.{round_:06d}.safetensors"


class MemoryStorage:
    """A dictionary; each checkpoint writes all of it to one file, ``folder/000020.safetensors``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._states: dict[tuple[int, int], Tensors] = {}

    def versions(self, round_: int) -> Iterator[tuple[int, int]]:
        if round_ > 0:
            tensors, _ = load_tensors(self._path(round_))
            for name, tensor in tensors.items():
                position, written, key = name.split("/")
                version = (int(position), int(written))
                self._states[version] = {**self._states.get(version, {}), key: tensor}
        yield from self._states

    def read(self, position: int, round_: int) -> Tensors:
        return self._states[position, round_]

    def write(self, position: int, round_: int, state: Tensors) -> None:
        self._states[position, round_] = state

    def supersede(self, position: int, round_: int) -> None:
        # The last checkpoint has its own copy, in its file.
        del self._states[position, round_]

    def save(self, round_: int, current: Mapping[int, int]) -> None:
        versions = {(position, written): self._states[position, written] for position, written in current.items()}
        tensors = {f"{p}/{w}/{name}": tensor for (p, w), state in versions.items() for name, tensor in state.items()}
        save_tensors(self._path(round_), tensors, {})

    def prune(self, round_: int) -> None:
        before = [path for path in self._folder.glob("*.safetensors") if path.stem < self._path(round_).stem]
        needed = {self._path(round_), *sorted(before)[-1:]}
        for path in self._folder.glob("*.safetensors"):
            if path not in needed:
                path.unlink()

    def _path(self, round_: int) -> Path:
        return self._folder / f"{round_:06d}.safetensors"


STORAGES: dict[str, Callable[[Path], Storage]] = {"disk": DiskStorage, "memory": MemoryStorage}
