"""A run's whole state to a checkpoint and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedflair.federated.server import ServerState
from fedflair.runs.tensors import load_tensors, save_tensors

_GROUPS = ("optimizer_state", "algorithm_state", "mechanism_state")


def save_state(path: Path, state: ServerState, facts: Mapping[str, Any]) -> None:
    """Saves a run's state; ``facts`` travel with it (best score, seconds, seed of the noise)."""
    tensors = {"parameters": state.parameters}
    for group in _GROUPS:
        tensors |= {f"{group}/{name}": tensor for name, tensor in getattr(state, group).items()}
    save_tensors(path, tensors, {**facts, "round": state.round})


def load_state(path: Path, device: torch.device) -> tuple[ServerState, dict[str, Any]]:
    """What ``save_state`` saved: (state with vectors on ``device``, facts)."""
    tensors, facts = load_tensors(path)
    groups: dict[str, dict[str, torch.Tensor]] = {group: {} for group in _GROUPS}
    for name, tensor in tensors.items():
        group, _, rest = name.partition("/")
        if rest:
            # Scalars (step counters, bounds) stay on the CPU, where they are read without waiting for a GPU.
            groups[group][rest] = tensor.to(device) if tensor.ndim else tensor
    return ServerState(int(facts["round"]), tensors["parameters"].to(device), **groups), facts
