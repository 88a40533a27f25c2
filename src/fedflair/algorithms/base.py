"""The shape of a federated algorithm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fedflair.aggregate import UpdateSum
from fedflair.client import ClientUpdate
from fedflair.config import TrainConfig
from fedflair.data.federated import ClientData
from fedflair.models.flat import FlatModel
from fedflair.server import Broadcast, ServerState, Tensors

ClientUpdateFn = Callable[[FlatModel, Broadcast, ClientData, np.random.Generator], ClientUpdate]


@dataclass(frozen=True)
class Algorithm:
    """init: parameters -> algorithm_state.

    client_update: (scratch model, the round as broadcast, client, randomness) -> ClientUpdate.
    server_update: (state, mean of the clients' deltas float32 [P], sums over the cohort) -> next state, one round
        further. The mean is what the mechanism made of it; the sums are as the clients sent them.
    observe: (state, the round's row of metrics) -> state; for algorithms that adapt to what was measured.
    keeps_client_state: clients have a state between rounds (``ClientUpdate.client_state``).
    """

    init: Callable[[torch.Tensor], Tensors]
    client_update: ClientUpdateFn
    server_update: Callable[[ServerState, torch.Tensor, UpdateSum], ServerState]
    observe: Callable[[ServerState, Mapping[str, Any]], ServerState] = lambda state, row: state
    keeps_client_state: bool = False


CLIENT_WEIGHTS: dict[str, Callable[[int], float]] = {
    "uniform": lambda num_examples: 1.0,
    "num_examples": float,
}


def client_weight(config: TrainConfig, num_examples: int) -> float:
    """Weight of a client's update in the mean."""
    return CLIENT_WEIGHTS[config.weighting](num_examples)
