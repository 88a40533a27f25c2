"""Reptile (Nichol et al., 2018): look for parameters that a few local steps make good on each client.

each client k:   w_k <- local SGD from w
server:          w <- w + lr * mean_k (w_k - w)         (central_optimizer sgd; others take the same mean)

The rounds are those of fedavg. What differs is the aim, a model that is good after local training: watch
train_after/* (with local_evaluation), and fedflair evaluate --per_user --personalise_steps.
"""

from __future__ import annotations

from fedflair.config.train_config import TrainConfig
from fedflair.federated.algorithms import fedavg
from fedflair.federated.algorithms.base import Algorithm


def make(config: TrainConfig, num_clients: int) -> Algorithm:
    return fedavg.make(config, num_clients)
