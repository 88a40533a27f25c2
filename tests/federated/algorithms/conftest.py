"""A problem of two clients that any other tool can solve alike: photographs of one colour, the same in every crop."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.data.images.crops import decode, eval_inputs
from fedflair.engine.flat_model import flatten
from fedflair.federated.client_states import ClientStates, MemoryStorage, open_states
from fedflair.federated.server import ServerState
from fedflair.federated.setup import TrainingSetup, initial_state, make_setup
from fedflair.training.round import run_round
from tests.conftest import write_tiny_store

SIDE = 16


def plain_colour(number: int) -> bytes:
    """A PNG of one colour: cropping, flipping and resizing leave it as it is."""
    colour = np.random.default_rng(number).integers(0, 256, 3, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.broadcast_to(colour, (SIDE, SIDE, 3)).copy()).save(buffer, "PNG")
    return buffer.getvalue()


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4))


@pytest.fixture(scope="session")
def plain_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.hdf5"
    return write_tiny_store(path, {"train": (3, 5), "val": (1,), "test": (1,)}, plain_colour)


@pytest.fixture
def problem(plain_store: Path) -> Callable[..., TrainingSetup]:
    """(options) -> the set-up of a run over both clients, whole batches, two local epochs, plain server steps."""

    def make(**options: Any) -> TrainingSetup:
        defaults: dict[str, Any] = {
            "data_path": plain_store,
            "model": "small_cnn",
            "pretrained": False,
            "image_size": SIDE,
            "cohort_size": 2,
            "central_num_iterations": 4,
            "central_optimizer": "sgd",
            "learning_rate": 1.0,
            "central_lr_schedule": "constant",
            "central_lr_num_warmup_iterations": 0,
            "local_learning_rate": 0.5,
            "local_max_grad_norm": 100.0,
            "device": "cpu",
        }
        setup = make_setup(TrainConfig.of(**{**defaults, **options}), noise_seed=0)
        return replace(setup, worker=replace(setup.worker, module=network()))

    return make


def inputs_and_targets(setup: TrainingSetup) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What each client trains on: (inputs float32 [n, 3, SIDE, SIDE], targets float32 [n, 4])."""
    clients = [
        setup.worker.clients.load(name, None, np.random.default_rng(0)) for name in setup.worker.clients.client_ids
    ]
    return [
        (eval_inputs(decode(client.images), SIDE).contiguous(), torch.from_numpy(client.labels).float())
        for client in clients
    ]


def run(setup: TrainingSetup, num_rounds: int, states: ClientStates | None = None) -> ServerState:
    """The state after some rounds over both clients."""
    state = initial_state(setup)
    if states is None:
        states = open_states(MemoryStorage(Path("unused")), setup.worker.clients.client_ids, 0, None)
    with thread_backend(setup.worker) as backend:
        for _ in range(num_rounds):
            cohort = list(setup.worker.clients.client_ids)
            state, _ = run_round(state, cohort, setup=setup, backend=backend, states=states)
    return state


def named_parameters(setup: TrainingSetup, state: ServerState) -> dict[str, torch.Tensor]:
    """The state's parameters by name, in the module's own layout."""
    model = flatten(network(), setup.worker.device)
    model.parameters.copy_(state.parameters)
    return {name: parameter.detach().clone() for name, parameter in model.module.named_parameters()}
