"""What workers do in a round: train a group of clients and sum their updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from fedflair.aggregate import UpdateSum
from fedflair.backends import Worker
from fedflair.sampling import stream
from fedflair.server import Broadcast


@dataclass(frozen=True)
class ClientWork:
    """One client of a group. state: what the algorithm keeps of it between rounds."""

    client_id: str
    state: Mapping[str, torch.Tensor] = field(default_factory=dict)


def train_group(worker: Worker, server: Broadcast, group: list[ClientWork]) -> UpdateSum:
    """Trains the clients of a group one by one and sums what they send.

    Each update goes through the client's own mechanism, then through the central clipping.
    """
    setup, partial = worker.setup, UpdateSum()
    for work in group:
        worker.check_stop()
        generator = stream(setup.config.seed, "client", server.round, work.client_id)
        client = setup.dataset.load(work.client_id, setup.config.max_num_user_images, generator)
        client = replace(client, state=work.state)
        update = setup.algorithm.client_update(worker.model, server, client, generator)
        if setup.local_mechanism.name != "none":
            setup.local_mechanism.privatise(update.delta, server.round, work.client_id)
        clip = setup.mechanism.clip(update.delta, server.clipping_bound)
        partial = partial.add_client(work.client_id, update, clip)
    return partial
