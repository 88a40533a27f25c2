"""Federated averaging (McMahan et al., 2017) with an adaptive server (Reddi et al., 2021).

each client k:   w_k <- local SGD from w
server:          g = -sum_k weight_k (w_k - w) / sum_k weight_k;   w <- optimizer(w, g, lr of the round)
"""

from __future__ import annotations

import numpy as np

from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import ClientData
from fedflair.engine.flat_model import FlatModel
from fedflair.federated.algorithms.base import Algorithm, client_weight, local_training, optimizer_update
from fedflair.federated.client import ClientUpdate, train_locally
from fedflair.federated.server import Broadcast


def make(config: TrainConfig, num_clients: int) -> Algorithm:
    def client_update(
        model: FlatModel, server: Broadcast, client: ClientData, generator: np.random.Generator
    ) -> ClientUpdate:
        options = local_training(config, server.round)
        delta, metrics = train_locally(model, server.parameters, client, options, generator)
        return ClientUpdate(delta, client_weight(config, client.num_examples), client.num_examples, metrics)

    return Algorithm(lambda parameters: {}, client_update, optimizer_update(config))
