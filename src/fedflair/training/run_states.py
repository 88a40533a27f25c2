"""The client states of a run: how much room they need, said and checked before it starts, and where they are."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.federated.algorithms.scaffold import STORAGE
from fedflair.federated.client_states import NO_STATES, STORAGES, ClientStates, open_states
from fedflair.federated.setup import TrainingSetup


@dataclass(frozen=True)
class StateSize:
    """num_clients: clients that will have a state at the end, in expectation. bytes_each: of one of them.

    num_superseded: states that newer ones replaced and the last two checkpoints still need, at most.
    """

    num_clients: int
    bytes_each: int
    num_superseded: int

    @property
    def bytes(self) -> int:
        return (self.num_clients + self.num_superseded) * self.bytes_each


def state_size(config: TrainConfig, num_clients: int, num_parameters: int) -> StateSize:
    """Room for the control variates of the clients that a run will meet."""
    cohort_size, algorithm = config.cohort.cohort_size, config.algorithm
    met = num_clients * (1 - (1 - min(cohort_size / num_clients, 1.0)) ** algorithm.central_num_iterations)
    kept = min(round(met), algorithm.scaffold_max_clients or num_clients)
    superseded = cohort_size * config.evaluation.evaluation_frequency if algorithm.scaffold_states == "disk" else 0
    return StateSize(kept, num_parameters * STORAGE[algorithm.scaffold_dtype].itemsize, 2 * min(superseded, kept))


def describe_states(setup: TrainingSetup) -> str:
    """The size of what is kept of clients, in a line."""
    config, size = setup.config, _size(setup)
    return (
        f"client states: about {size.num_clients:,} of {len(setup.worker.clients.client_ids):,} clients, "
        f"{_bytes(size.bytes_each)} each in {config.algorithm.scaffold_dtype}, {_bytes(size.bytes)} "
        f"{'on disk' if config.algorithm.scaffold_states == 'disk' else 'in memory'}"
    )


def check_room(setup: TrainingSetup, folder: Path) -> None:
    """Raises ConfigError where the states will not fit on the disk of ``folder``, or in this machine's memory."""
    if not setup.worker.algorithm.keeps_client_state:
        return
    needed = _size(setup).bytes
    if setup.config.algorithm.scaffold_states == "disk":
        existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
        room, where = shutil.disk_usage(existing).free, f"are free at {existing}"
    else:
        room, where = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "of memory are in this machine"
    if needed > room:
        raise ConfigError(
            f"scaffold_states: about {_bytes(needed)} of client states and only {_bytes(room)} {where}; lower "
            "scaffold_max_clients, or use --scaffold_dtype bfloat16 or another algorithm"
        )


def open_run_states(setup: TrainingSetup, folder: Path, round_: int) -> ClientStates:
    """The states of the run in ``folder`` as a checkpoint of ``round_`` has them."""
    if not setup.worker.algorithm.keeps_client_state:
        return NO_STATES
    storage = STORAGES[setup.config.algorithm.scaffold_states](folder / "client_states")
    return open_states(storage, setup.worker.clients.client_ids, round_, setup.config.algorithm.scaffold_max_clients)


def _size(setup: TrainingSetup) -> StateSize:
    num_parameters = sum(p.numel() for p in setup.worker.module.parameters() if p.requires_grad)
    return state_size(setup.config, len(setup.worker.clients.client_ids), num_parameters)


def _bytes(count: int) -> str:
    value, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"
