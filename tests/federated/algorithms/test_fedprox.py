"""FedProx by hand on two clients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fedflair.config.train_config import TrainConfig
from fedflair.engine.flat_model import flatten
from fedflair.federated.algorithms.fedprox import make
from fedflair.federated.client import LocalTraining, sgd_step
from fedflair.federated.server import Broadcast
from fedflair.federated.setup import TrainingSetup
from tests.federated.algorithms.conftest import run


def test_the_pull_by_hand() -> None:
    # logit = w x with x = 2, y = 1 and server parameter 0; at w = 1: gradient 2 (sigmoid(2) - 1) + mu (w - 0).
    model = flatten(nn.Linear(1, 1, bias=False), torch.device("cpu"))
    model.parameters.fill_(1.0)
    pulls: list[float] = []

    def pull(parameters: torch.Tensor, gradients: torch.Tensor) -> None:
        gradients.add_(parameters, alpha=0.5).add_(torch.zeros(1), alpha=-0.5)
        pulls.append(float(gradients))

    options = LocalTraining(learning_rate=0.1, num_epochs=1, batch_size=1, max_grad_norm=9.0, image_size=16)
    sgd_step(model, torch.tensor([[2.0]]), torch.tensor([[1.0]]), options, pull)
    expected = 2 * (1 / (1 + np.exp(-2)) - 1) + 0.5
    assert abs(pulls[0] - expected) < 1e-6
    assert abs(float(model.parameters) - (1 - 0.1 * expected)) < 1e-6


def test_two_clients_by_plain_autograd(problem: Callable[..., TrainingSetup]) -> None:
    """The mean of both clients' updates, each from SGD on loss + mu/2 |w - w_server|^2 by autograd."""
    from tests.federated.algorithms.conftest import inputs_and_targets, named_parameters, network

    setup = problem(algorithm_name="fedprox", mu=0.8, local_num_epochs=3)
    server = [p.detach().clone() for p in network().parameters()]
    deltas = []
    for inputs, targets in inputs_and_targets(setup):
        client = network()
        optimizer = torch.optim.SGD(client.parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(client(inputs), targets)
            distance = sum(((p - w) ** 2).sum() for p, w in zip(client.parameters(), server))
            (loss + 0.4 * distance).backward()
            optimizer.step()
        deltas.append([p.detach() - w for p, w in zip(client.parameters(), server)])
    ours = named_parameters(setup, run(setup, 1))
    for tensor, start, *parts in zip(ours.values(), server, *deltas):
        torch.testing.assert_close(tensor, start + torch.stack(parts).mean(0), rtol=0, atol=1e-6)


def test_mu_holds_clients_near_the_server_and_zero_is_fedavg(problem: Callable[..., TrainingSetup]) -> None:
    moved = []
    for options in ({"algorithm_name": "fedavg"}, *({"algorithm_name": "fedprox", "mu": mu} for mu in (0.0, 1.0))):
        setup = problem(local_num_epochs=5, **options)
        client = setup.worker.clients.load(setup.worker.clients.client_ids[1], None, np.random.default_rng(0))
        model = flatten(setup.worker.module, setup.worker.device)
        server = Broadcast(0, model.parameters.clone(), {}, np.inf)
        update = setup.worker.algorithm.client_update(model, server, client, np.random.default_rng(0))
        moved.append(update.delta)
    assert torch.equal(moved[0], moved[1])
    assert float(moved[2].norm()) < 0.8 * float(moved[0].norm())


def test_nothing_is_kept_between_rounds() -> None:
    algorithm = make(TrainConfig(), 2)
    assert algorithm.init(torch.zeros(3)) == {}
    assert not algorithm.keeps_client_state
