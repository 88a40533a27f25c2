"""FedProx (Li et al., 2020): federated averaging whose clients are held near the server's parameters.

each client k:   w_k <- local SGD from w on  loss + mu/2 |w_k - w|^2
server:          as fedavg
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import ClientData
from fedflair.engine.flat_model import FlatModel
from fedflair.federated.algorithms.base import (
    Algorithm,
    ClientUpdateFn,
    client_weight,
    local_training,
    optimizer_update,
)
from fedflair.federated.client import ClientUpdate, train_locally
from fedflair.federated.server import Broadcast


def make(config: TrainConfig, num_clients: int) -> Algorithm:
    client_update = proximal_client_update(config, lambda server: config.algorithm.mu)
    return Algorithm(lambda parameters: {}, client_update, optimizer_update(config))


def proximal_client_update(config: TrainConfig, mu_of: Callable[[Broadcast], float]) -> ClientUpdateFn:
    """Local SGD with the proximal term's gradient, mu (w_k - w), added before the gradient is clipped."""

    def client_update(
        model: FlatModel, server: Broadcast, client: ClientData, generator: np.random.Generator
    ) -> ClientUpdate:
        mu = mu_of(server)

        def pull_back(parameters: torch.Tensor, gradients: torch.Tensor) -> None:
            gradients.add_(parameters, alpha=mu).add_(server.parameters, alpha=-mu)

        options = local_training(config, server.round)
        delta, metrics = train_locally(
            model, server.parameters, client, options, generator, pull_back if mu > 0 else None
        )
        return ClientUpdate(delta, client_weight(config, client.num_examples), client.num_examples, metrics)

    return client_update
