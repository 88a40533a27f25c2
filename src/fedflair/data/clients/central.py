"""Batches for centralised training, cut into pieces that workers take as they take clients."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedflair.data.clients.federated import FederatedDataset
from fedflair.errors import ConfigError
from fedflair.sampling import CohortSampler, SamplerDescription, stream


def central_batches(
    clients: FederatedDataset, *, batch_size: int, piece_size: int, num_rounds: int, seed: int
) -> tuple[FederatedDataset, CohortSampler]:
    """(the pieces of every batch as clients, the sampler that gives a round the pieces of its batch).

    All images of ``clients`` are shuffled anew for each epoch by ``seed``; a batch may hold the end of one epoch and
    the beginning of the next. Raises ConfigError where a batch is larger than an epoch.
    """
    images = np.concatenate([clients.images_of(position) for position in range(len(clients.client_ids))])
    if batch_size > len(images):
        raise ConfigError(
            f"central_batch_size: {batch_size} is more than the {len(images):,} images to train on; lower it"
        )
    num_pieces = -(-batch_size // piece_size)

    @lru_cache(maxsize=2)
    def order(epoch: int) -> npt.NDArray[np.int64]:
        shuffled: npt.NDArray[np.int64] = stream(seed, "central order", epoch).permutation(images)
        return shuffled

    def images_of(position: int) -> npt.NDArray[np.int64]:
        round_, piece = divmod(position, num_pieces)
        start = round_ * batch_size + piece * piece_size
        stop = min(start + piece_size, (round_ + 1) * batch_size)
        return np.array([order(k // len(images))[k % len(images)] for k in range(start, stop)], dtype=np.int64)

    names = [f"step {round_} piece {piece}" for round_ in range(num_rounds) for piece in range(num_pieces)]
    pieces = replace(
        clients, client_ids=names, images_of=images_of, _positions={name: k for k, name in enumerate(names)}
    )

    def sample(round_: int) -> list[str]:
        return names[round_ * num_pieces : (round_ + 1) * num_pieces]

    return pieces, CohortSampler(sample, SamplerDescription("fixed", num_pieces, len(names)))
