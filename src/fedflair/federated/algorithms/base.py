"""The shape of a federated algorithm, and the pieces that most of them share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fedflair.config.groups.cohort import CohortOptions
from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import ClientData
from fedflair.engine.flat_model import FlatModel
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.client import ClientUpdate, LocalTraining
from fedflair.federated.schedules import local_learning_rate, server_learning_rate
from fedflair.federated.server import SERVER_OPTIMIZERS, Broadcast, ServerState, Tensors, optimizer_step

ClientUpdateFn = Callable[[FlatModel, Broadcast, ClientData, np.random.Generator], ClientUpdate]
ServerUpdateFn = Callable[[ServerState, torch.Tensor, UpdateSum], ServerState]


@dataclass(frozen=True)
class Algorithm:
    """init: parameters -> algorithm_state.

    client_update: (scratch model, the round as broadcast, client, randomness) -> ClientUpdate.
    server_update: (state, mean of the clients' deltas float32 [P], sums over the cohort) -> next state, one round
        further. The mean is what the mechanism made of it; the sums are as the clients sent them, and in a private run
        empty but for what the noisy sum itself says (``release``).
    observe: (state, the round's row of metrics) -> state; for algorithms that adapt to what was measured.
    keeps_client_state: clients have a state between rounds (``ClientUpdate.client_state``).
    vectors_up: vectors of length P that a client sends, its update among them.
    federated: False where what stands in for clients are pieces of a batch.
    """

    init: Callable[[torch.Tensor], Tensors]
    client_update: ClientUpdateFn
    server_update: ServerUpdateFn
    observe: Callable[[ServerState, Mapping[str, Any]], ServerState] = lambda state, row: state
    keeps_client_state: bool = False
    vectors_up: int = 1
    federated: bool = True


MakeAlgorithm = Callable[[TrainConfig, int], Algorithm]


CLIENT_WEIGHTS: dict[str, Callable[[int, CohortOptions], float]] = {
    "uniform": lambda num_examples, options: 1.0,
    "num_examples": lambda num_examples, options: float(num_examples),
    # log(1 + n): log(n) would silence the quarter of FLAIR's users that have one image.
    "log": lambda num_examples, options: math.log1p(num_examples),
    "sqrt": lambda num_examples, options: math.sqrt(num_examples),
    "clipped": lambda num_examples, options: float(min(num_examples, options.weight_clip)),
}


def client_weight(config: TrainConfig, num_examples: int) -> float:
    """Weight of a client's update in the mean."""
    return CLIENT_WEIGHTS[config.cohort.weighting](num_examples, config.cohort)


def local_training(config: TrainConfig, round_: int) -> LocalTraining:
    """The configuration's options of local SGD in one round."""
    return LocalTraining(
        learning_rate=local_learning_rate(config, round_),
        num_epochs=config.local.local_num_epochs,
        batch_size=config.batch_size,
        max_grad_norm=config.local.local_max_grad_norm,
        image_size=config.data.image_size,
        num_steps=config.local.local_num_steps,
        momentum=config.local.local_momentum,
        weight_decay=config.local.local_weight_decay,
        augmentation=config.local.local_augmentation,
        reshuffled=config.algorithm.like != "pfl",
    )


def optimizer_update(config: TrainConfig) -> ServerUpdateFn:
    """The server update that most algorithms share: one step of ``central_optimizer``, minus the mean as gradient."""
    optimizer = SERVER_OPTIMIZERS[config.server.central_optimizer](config.server)

    def server_update(state: ServerState, mean_delta: torch.Tensor, cohort_sum: UpdateSum) -> ServerState:
        learning_rate = server_learning_rate(config, state.round)
        noise = None if cohort_sum.release is None else cohort_sum.release.mean_noise_variance
        parameters, optimizer_state = optimizer_step(
            optimizer, state.parameters, mean_delta, state.optimizer_state, learning_rate, noise
        )
        return replace(state, round=state.round + 1, parameters=parameters, optimizer_state=optimizer_state)

    return server_update
