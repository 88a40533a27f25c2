"""Federated averaging (McMahan et al., 2017) with an adaptive server (Reddi et al., 2021).

each client k:   w_k <- local SGD from w
server:          g = -sum_k weight_k (w_k - w) / sum_k weight_k;   w <- optimizer(w, g, lr of the round)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fedflair.aggregate import UpdateSum
from fedflair.algorithms.base import Algorithm, client_weight
from fedflair.client import ClientUpdate, LocalTraining, train_locally
from fedflair.config import TrainConfig
from fedflair.data.federated import ClientData
from fedflair.models.flat import FlatModel
from fedflair.server import SERVER_OPTIMIZERS, Broadcast, ServerState, server_learning_rate


def make(config: TrainConfig) -> Algorithm:
    optimizer = SERVER_OPTIMIZERS[config.central_optimizer](config)
    options = local_training(config)

    def client_update(
        model: FlatModel, server: Broadcast, client: ClientData, generator: np.random.Generator
    ) -> ClientUpdate:
        delta, metrics = train_locally(model, server.parameters, client, options, generator)
        return ClientUpdate(delta, client_weight(config, client.num_examples), client.num_examples, metrics)

    def server_update(state: ServerState, mean_delta: torch.Tensor, cohort_sum: UpdateSum) -> ServerState:
        learning_rate = server_learning_rate(config, state.round)
        parameters, optimizer_state = optimizer.apply(
            state.parameters, mean_delta.neg(), state.optimizer_state, learning_rate
        )
        return replace(state, round=state.round + 1, parameters=parameters, optimizer_state=optimizer_state)

    return Algorithm(lambda parameters: {}, client_update, server_update)


def local_training(config: TrainConfig) -> LocalTraining:
    """The configuration's options of local SGD."""
    return LocalTraining(
        learning_rate=config.local_learning_rate,
        num_epochs=config.local_num_epochs,
        batch_size=config.local_batch_size,
        max_grad_norm=config.local_max_grad_norm,
        image_size=config.image_size,
    )
