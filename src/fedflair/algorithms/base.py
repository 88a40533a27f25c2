"""The shape of a federated algorithm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fedflair.client import ClientUpdate
from fedflair.config import TrainConfig
from fedflair.data.federated import ClientData
from fedflair.models.flat import FlatModel
from fedflair.server import ServerState, Tensors

ClientUpdateFn = Callable[[FlatModel, torch.Tensor, Tensors, ClientData, np.random.Generator], ClientUpdate]


@dataclass(frozen=True)
class Algorithm:
    """init: parameters -> algorithm_state.

    client_update: (scratch model, server parameters, algorithm_state, client, randomness) -> ClientUpdate.
    server_update: (state, mean of the clients' deltas float32 [P]) -> next state, one round further.
    """

    init: Callable[[torch.Tensor], Tensors]
    client_update: ClientUpdateFn
    server_update: Callable[[ServerState, torch.Tensor], ServerState]


CLIENT_WEIGHTS: dict[str, Callable[[int], float]] = {
    "uniform": lambda num_examples: 1.0,
    "num_examples": float,
}


def client_weight(config: TrainConfig, num_examples: int) -> float:
    """Weight of a client's update in the mean."""
    return CLIENT_WEIGHTS[config.weighting](num_examples)
