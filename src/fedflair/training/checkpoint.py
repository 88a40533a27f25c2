"""A run's whole state to a checkpoint and back: the last one, the one before it, and what else has to fit to them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedflair.errors import DataError
from fedflair.federated.client_states import ClientStates
from fedflair.federated.server import ServerState
from fedflair.runs.folder import RunFolder, seal_rows
from fedflair.runs.json_text import strict
from fedflair.runs.provenance import Provenance
from fedflair.runs.tensors import load_facts, load_tensors, save_tensors
from fedflair.system.files import disk_errors, sync_folder

_GROUPS = ("optimizer_state", "algorithm_state", "mechanism_state")
# Of the checkpoint alone: what it says of the files beside it.
_SEALS = ("metrics", "client_states")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def save_checkpoint(folder: RunFolder, state: ServerState, facts: Mapping[str, Any], states: ClientStates) -> None:
    """Saves the whole state, clients' included, so that a resumed run goes on from here.

    The last checkpoint becomes the previous one. ``facts`` travel along (best score, seconds, seed of the noise), with
    digests of the rows and of the clients' states so far, all of which are on the disk first.
    """
    states.save(state.round)
    seals = {"metrics": seal_rows(folder, state.round), "client_states": states.digest(state.round)}
    # Where a run is stopped right after its checkpoint, that one is written again and the one before it stays.
    further = (load_facts(folder.last) or {"round": state.round})["round"] != state.round
    if further:
        _put_in_place_of(folder.previous, folder.last)
    save_state(folder.last, state, {**facts, **seals})
    if further:
        states.prune(state.round)


def save_state(path: Path, state: ServerState, facts: Mapping[str, Any]) -> None:
    """Saves a run's state with ``facts``."""
    tensors = {"parameters": state.parameters}
    for group in _GROUPS:
        tensors |= {f"{group}/{name}": tensor for name, tensor in getattr(state, group).items()}
    save_tensors(path, tensors, {**facts, "round": state.round})


def load_state(
    path: Path, device: torch.device, *, remedy: str = "start the run again"
) -> tuple[ServerState, dict[str, Any]]:
    """What ``save_state`` saved: (state with vectors on ``device``, facts). remedy: as in ``load_tensors``."""
    tensors, facts = load_tensors(path, remedy=remedy)
    groups: dict[str, dict[str, torch.Tensor]] = {group: {} for group in _GROUPS}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        if rest:
            # Scalars (step counters, bounds) stay on the CPU, where they are read without waiting for a GPU.
            groups[group][rest] = tensor.to(device) if tensor.ndim else tensor
    return ServerState(int(facts["round"]), tensors["parameters"].to(device), **groups), facts


def last_checkpoint(folder: RunFolder, device: torch.device) -> tuple[ServerState, dict[str, Any]]:
    """The state and facts to continue a run from, checked against what is beside them.

    Raises DataError, with the way back, where a file is damaged or was changed since.
    """
    remedy = _way_back(folder)
    state, facts = load_state(folder.last, device, remedy=remedy)
    if facts.get("metrics") not in (None, seal_rows(folder, state.round)):
        raise DataError(
            f"{folder.metrics}: rows of the first {state.round} rounds are missing or were changed since the "
            f"checkpoint; restore the file, or {remedy}"
        )
    # An earlier version wrote NaN for a best score where no label could be scored.
    return state, {name: value for name, value in strict(facts).items() if name not in _SEALS}


def check_provenance(folder: RunFolder, provenance: Provenance | None, facts: Mapping[str, Any]) -> None:
    """Raises DataError where the checkpoint with these facts is not one of the run that ``provenance`` describes."""
    if facts.get("provenance") not in (None, provenance and provenance.digest()):
        raise DataError(
            f"{folder.provenance}: missing, or changed since the checkpoint; restore it, or start the run again"
        )


def check_states(folder: RunFolder, states: ClientStates, round_: int) -> None:
    """Raises DataError where the clients' states are not those that the checkpoint of ``round_`` was written with."""
    sealed = (load_facts(folder.last) or {}).get("client_states")
    if sealed not in (None, states.digest(round_)):
        raise DataError(
            f"{folder.path / 'client_states'}: states of clients are missing, or are not those of the checkpoint; "
            f"restore them, or {_way_back(folder)}"
        )


def go_back(folder: RunFolder) -> None:
    """Makes the checkpoint before the last one the last. Raises DataError where there is none, or it is damaged too."""
    if not folder.previous.is_file():
        raise DataError(f"{folder.previous}: no such checkpoint; continue from the last one, or start the run again")
    load_tensors(folder.previous)
    _put_in_place_of(folder.last, folder.previous)


def _way_back(folder: RunFolder) -> str:
    if not folder.previous.is_file():
        return "start the run again"
    return (
        f"go back to the checkpoint before it with: fedflair train --resume --resume_from previous --run {folder.path}"
    )


def _put_in_place_of(path: Path, other: Path) -> None:
    """Gives ``path`` the content of ``other``, which stays; ``path`` is there, old or new, at any instant."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        temporary.unlink(missing_ok=True)
        try:
            os.link(other, temporary)
        except OSError:
            # A file system without hard links. Closed to others before the secret seed of the noise is in it.
            with other.open("rb") as source, os.fdopen(os.open(temporary, _NEW, 0o600), "wb") as file:
                shutil.copyfileobj(source, file)
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
