"""fedflair's rounds with every user in each of them, in the order of their names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fedflair.backends.threads import thread_backend
from fedflair.engine.flat_model import FlatModel, flatten
from fedflair.evaluation.partition import score_partition
from fedflair.federated.client_states import MemoryStorage, open_states
from fedflair.federated.server import ServerState
from fedflair.federated.setup import TrainingSetup, initial_state
from fedflair.privacy.mechanisms import noise as noises
from fedflair.sampling import stream
from fedflair.training.round import run_round
from pfl_parity.cases import NOISE_SEED, NUM_ROUNDS

Tensors = dict[str, torch.Tensor]


def solve(setup: TrainingSetup, network: nn.Module) -> Tensors:
    """Parameters by name after the rounds. network: another copy of the one in the set-up, for names and shapes."""
    users = list(setup.worker.clients.client_ids)
    states = open_states(MemoryStorage(Path("unused")), users, 0, None)
    model = flatten(network, torch.device("cpu"))
    state = initial_state(setup)
    _inject_noise(model)
    with thread_backend(setup.worker) as backend:
        for _ in range(NUM_ROUNDS):
            state, _ = run_round(state, users, setup=setup, backend=backend, states=states)
            scores = score_partition(state.parameters, "val", setup=setup.worker, backend=backend)
            state = _observed(setup, state, scores.metrics())
    model.parameters.copy_(state.parameters)
    return {name: parameter.detach().clone() for name, parameter in model.module.named_parameters()}


def _observed(setup: TrainingSetup, state: ServerState, metrics: dict[str, float]) -> ServerState:
    return setup.worker.algorithm.observe(state, {f"val/{name}": value for name, value in metrics.items()})


def normals(network: nn.Module, round_: int) -> Tensors:
    """Independent N(0, 1) for each parameter, by name: the same for both tools."""
    generator = stream(NOISE_SEED, "parity", round_)
    return {
        name: torch.from_numpy(generator.standard_normal(tuple(parameter.shape))).to(parameter.dtype)
        for name, parameter in network.named_parameters()
    }


def _inject_noise(model: FlatModel) -> None:
    """The noise of mechanisms becomes that of ``normals``, in the vector's own layout, not rounded to a grid."""
    round_ = 0

    def add(total: torch.Tensor, kind: str, scale: float, key: int) -> torch.Tensor:
        nonlocal round_
        for name, tensor in normals(model.module, round_).items():
            model.module.get_parameter(name).data.copy_(tensor)
        round_ += 1
        return total.add_(model.parameters, alpha=scale)

    noises.add_noise = add  # type: ignore[assignment]  # what this function is for
