"""SCAFFOLD by hand on two clients, and its control variates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.federated.algorithms.scaffold import make
from fedflair.federated.client_states import MemoryStorage, open_states
from fedflair.federated.setup import TrainingSetup
from tests.federated.algorithms.conftest import inputs_and_targets, named_parameters, network, run

RATE, STEPS = 0.5, 2


def paper(setup: TrainingSetup, option: int, num_rounds: int) -> dict[str, torch.Tensor]:
    """Algorithm 1 of the paper over both clients, parameter by parameter, in plain PyTorch."""
    server = [p.detach().clone() for p in network().parameters()]
    shared = [torch.zeros_like(p) for p in server]
    own = [[torch.zeros_like(p) for p in server] for _ in range(2)]
    data = inputs_and_targets(setup)

    def gradient(parameters: list[torch.Tensor], client: int) -> list[torch.Tensor]:
        model = network()
        for p, value in zip(model.parameters(), parameters):
            p.data.copy_(value)
        loss = nn.functional.binary_cross_entropy_with_logits(model(data[client][0]), data[client][1])
        return list(torch.autograd.grad(loss, list(model.parameters())))

    for _ in range(num_rounds):
        deltas, changes = [], []
        for client in range(2):
            local = [w.clone() for w in server]
            for _ in range(STEPS):
                gradients = gradient(local, client)
                local = [y - RATE * (g - ci + c) for y, g, ci, c in zip(local, gradients, own[client], shared)]
            if option == 1:
                new = gradient(server, client)
            else:
                new = [ci - c + (x - y) / (STEPS * RATE) for ci, c, x, y in zip(own[client], shared, server, local)]
            deltas.append([y - x for y, x in zip(local, server)])
            changes.append([n - ci for n, ci in zip(new, own[client])])
            own[client] = new
        server = [x + (a + b) / 2 for x, a, b in zip(server, *deltas)]
        shared = [c + (a + b) / 2 for c, a, b in zip(shared, *changes)]
    return {name: tensor for (name, _), tensor in zip(network().named_parameters(), server)}


@pytest.mark.parametrize("option", [1, 2])
def test_three_rounds_of_two_clients_are_the_papers(problem: Callable[..., TrainingSetup], option: int) -> None:
    setup = problem(algorithm_name="scaffold", scaffold_option=option)
    ours = named_parameters(setup, run(setup, 3))
    for name, expected in paper(setup, option, 3).items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_servers_control_is_the_mean_of_the_clients(problem: Callable[..., TrainingSetup], dtype: str) -> None:
    setup = problem(algorithm_name="scaffold", scaffold_dtype=dtype)
    states = open_states(MemoryStorage(Path("unused")), setup.worker.clients.client_ids, 0, None)
    state = run(setup, 3, states)
    kept = [states.get(3, client_id)["control"] for client_id in setup.worker.clients.client_ids]
    assert all(control.dtype == getattr(torch, dtype) for control in kept)
    mean = torch.stack([control.float() for control in kept]).mean(0)
    torch.testing.assert_close(state.algorithm_state["control"], mean, rtol=0, atol=1e-6)
    assert float(mean.norm()) > 0.01


def test_an_empty_cohort_changes_no_control() -> None:
    from fedflair.federated.aggregate import UpdateSum
    from fedflair.federated.server import ServerState

    algorithm = make(TrainConfig.of(central_optimizer="sgd"), 2)
    control = torch.tensor([1.0, 2.0])
    state = ServerState(0, torch.zeros(2), {}, {"control": control}, {})
    after = algorithm.server_update(state, torch.zeros(2), UpdateSum())
    assert torch.equal(after.algorithm_state["control"], control)
    assert after.round == 1


def test_what_it_is_not_defined_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="local_momentum: scaffold"):
        TrainConfig.of(algorithm_name="scaffold", local_momentum=0.9)
    with pytest.raises(ConfigError, match="scaffold"):
        TrainConfig.of(algorithm_name="scaffold", central_privacy_mechanism="gaussian_moments_accountant")
