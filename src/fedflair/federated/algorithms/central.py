"""Centralised training: what a model reaches that sees all images at once; the upper bound of the benchmark's table.

each piece k of a batch of central_batch_size images:   g_k <- gradient over the piece at w
server:                                                 w <- optimizer(w, mean of g_k over the images, lr of the step)

A step is a round whose "clients" are the pieces of one batch (``data/central.py``), so it is spread over workers,
summed and resumed as a round is. The pieces have local_batch_size images; options of clients say nothing here.
"""

from __future__ import annotations

import numpy as np

from fedflair.config.train_config import TrainConfig
from fedflair.data.clients.federated import ClientData
from fedflair.engine.flat_model import FlatModel
from fedflair.federated.algorithms.base import Algorithm, local_training, optimizer_update
from fedflair.federated.client import ClientUpdate
from fedflair.federated.full_gradient import full_gradient
from fedflair.federated.server import Broadcast


def make(config: TrainConfig, num_clients: int) -> Algorithm:
    def client_update(
        model: FlatModel, server: Broadcast, client: ClientData, generator: np.random.Generator
    ) -> ClientUpdate:
        options = local_training(config, server.round)
        gradient, metrics = full_gradient(model, server.parameters, client, options, generator)
        return ClientUpdate(gradient.neg_(), float(client.num_examples), client.num_examples, metrics)

    return Algorithm(lambda parameters: {}, client_update, optimizer_update(config), federated=False)
