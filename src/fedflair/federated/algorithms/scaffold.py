"""SCAFFOLD (Karimireddy et al., 2020): control variates take the drift out of local training.

each client k of S:   w_k <- local SGD from w with gradients  g + c - c_k
                      option 1:  c_k+ <- gradient of the client's whole loss at w
                      option 2:  c_k+ <- c_k - c + (w - w_k) / (steps * local lr)
server:               w as fedavg;   c <- c + sum_{k in S} (c_k+ - c_k) / number of clients

A client keeps c_k between rounds, zero at first. The option of 16-bit storage rounds c_k+ before the server hears of
the change, so that c stays the mean of what the clients keep.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import ClientData
from fedflair.engine.flat_model import FlatModel
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.algorithms.base import Algorithm, client_weight, local_training, optimizer_update
from fedflair.federated.client import ClientUpdate, train_locally
from fedflair.federated.full_gradient import full_gradient
from fedflair.federated.server import Broadcast, ServerState

STORAGE: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def make(config: TrainConfig, num_clients: int) -> Algorithm:
    optimizer_step = optimizer_update(config)
    dtype = STORAGE[config.algorithm.scaffold_dtype]

    def client_update(
        model: FlatModel, server: Broadcast, client: ClientData, generator: np.random.Generator
    ) -> ClientUpdate:
        options = local_training(config, server.round)
        shared = server.algorithm_state["control"]
        kept = client.state.get("control")
        own = torch.zeros_like(shared) if kept is None else kept.to(shared)
        correction = shared - own

        def correct(parameters: torch.Tensor, gradients: torch.Tensor) -> None:
            gradients.add_(correction)

        delta, metrics = train_locally(model, server.parameters, client, options, generator, correct)
        if config.algorithm.scaffold_option == 1:
            control, _ = full_gradient(model, server.parameters, client, options, generator)
        else:
            control = delta.div(-metrics.num_steps * options.learning_rate).sub_(correction)
        stored = control.to(dtype)
        weight = client_weight(config, client.num_examples)
        change = {"control": stored.to(shared) - own}
        return ClientUpdate(delta, weight, client.num_examples, metrics, change, {"control": stored.cpu()})

    def server_update(state: ServerState, mean_delta: torch.Tensor, cohort_sum: UpdateSum) -> ServerState:
        control = state.algorithm_state["control"]
        if "control" in cohort_sum.extra:
            control = torch.add(control, cohort_sum.extra["control"], alpha=1 / num_clients)
        return replace(optimizer_step(state, mean_delta, cohort_sum), algorithm_state={"control": control})

    return Algorithm(
        lambda parameters: {"control": torch.zeros_like(parameters)},
        client_update,
        server_update,
        keeps_client_state=True,
        vectors_up=2,
    )
