"""Clients over a store: FLAIR's own users, or artificial IID users drawn from all images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from fedflair.data.store.features import Features
from fedflair.data.store.labels import LabelSpace
from fedflair.data.store.packed import Partition, Store
from fedflair.errors import ConfigError
from fedflair.sampling import stream

SizeDistribution = Literal["constant", "poisson"]


@dataclass(frozen=True)
class ClientData:
    """What one client trains on in one round.

    images: encoded photographs, uint8 [bytes] each. labels: 0/1, uint8 [n, L].
    features: what a frozen network makes of them before its head, float32 [n, D]; ``images`` is empty then.
    state: what the algorithm keeps of this client between rounds, tensors by name; empty the first time.
    """

    client_id: str
    images: list[npt.NDArray[np.uint8]]
    labels: npt.NDArray[np.uint8]
    state: Mapping[str, torch.Tensor] = field(default_factory=dict)
    features: npt.NDArray[np.float32] | None = None

    @property
    def num_examples(self) -> int:
        return len(self.labels)


class Clients(Protocol):
    """Whom cohorts are drawn from, and what each of them trains on.

    client_ids: in a fixed order. num_images: how many images a client has. load: (client, most images, randomness) ->
    what it trains on in this round.
    """

    @property
    def client_ids(self) -> list[str]: ...

    def num_images(self, client_id: str) -> int: ...

    def load(self, client_id: str, max_num_images: int | None, generator: np.random.Generator) -> ClientData: ...


@dataclass(frozen=True)
class FederatedDataset:
    """The clients of one partition. Holds indices only; images are read from the store when a client is loaded.

    client_ids: in a fixed order. images_of: the image indices of the client at a position.
    features: of the partition, where clients train on them and no image is read.
    drawn: of clients who have no images of their own, those of one round; ``images_of`` has as many as are expected.
    """

    partition: Partition
    labels: LabelSpace
    client_ids: list[str]
    images_of: Callable[[int], npt.NDArray[np.int64]]
    _positions: dict[str, int] = field(repr=False)
    features: Features | None = None
    drawn: Callable[[np.random.Generator], npt.NDArray[np.int64]] | None = None

    def num_images(self, client_id: str) -> int:
        return len(self.images_of(self._positions[client_id]))

    def load(self, client_id: str, max_num_images: int | None, generator: np.random.Generator) -> ClientData:
        """The client's examples; of a client with more than ``max_num_images``, a random subset drawn here and now."""
        own = self.images_of(self._positions[client_id])
        images = own if self.drawn is None else self.drawn(generator)
        if max_num_images is not None and len(images) > max_num_images:
            images = np.sort(generator.choice(images, size=max_num_images, replace=False))
        labels = self.labels.targets(self.partition, images)
        if self.features is not None:
            return ClientData(client_id, [], labels, features=self.features.of(images))
        self.partition.prefetch(images)
        return ClientData(client_id, [self.partition.encoded(int(i)) for i in images], labels)


def natural_users(store: Store, partition: str, labels: LabelSpace, *, min_num_images: int = 1) -> FederatedDataset:
    """One client a FLAIR user; users with fewer than ``min_num_images`` images are left out.

    Raises ConfigError where none is left.
    """
    columns = store.partitions[partition].columns
    users = np.flatnonzero(np.diff(columns.user_offsets) >= min_num_images)
    if len(users) == 0:
        raise ConfigError(f"minimum_num_datapoints_per_user: no user of {partition!r} has {min_num_images} images")

    def images_of(position: int) -> npt.NDArray[np.int64]:
        user = users[position]
        return np.arange(columns.user_offsets[user], columns.user_offsets[user + 1])

    return _dataset(store, partition, labels, [columns.user_ids[user] for user in users], images_of)


def images_per_person(store: Store, partition: str) -> tuple[float, int]:
    """(mean, most) images of the people of a partition."""
    counts = np.diff(store.partitions[partition].columns.user_offsets)
    return float(counts.mean()), int(counts.max())


def iid_users(
    store: Store,
    partition: str,
    labels: LabelSpace,
    *,
    mean_num_images: float,
    distribution: SizeDistribution,
    seed: int,
) -> FederatedDataset:
    """Artificial users: all images of the partition shuffled once by ``seed`` and cut into disjoint clients.

    Every image belongs to exactly one client, so that "one client more or less" means something to the accountant.
    Sizes all equal ``mean_num_images`` (``constant``; the last client takes the rest) or are Poisson, at least 1.
    """
    num_images = _images_to_share(store, partition, mean_num_images)
    generator = stream(seed, "iid users")
    order = generator.permutation(num_images)
    if distribution == "constant":
        cuts = np.arange(0, num_images - int(mean_num_images) + 1, int(mean_num_images))
    else:
        size = int(2 * num_images // mean_num_images + 10)
        sizes = np.maximum(generator.poisson(mean_num_images, size=size), 1)
        cuts = np.concatenate([[0], np.cumsum(sizes)])
        cuts = cuts[cuts < num_images]
    offsets = np.append(cuts, num_images)

    def images_of(position: int) -> npt.NDArray[np.int64]:
        return np.sort(order[offsets[position] : offsets[position + 1]])

    return _dataset(store, partition, labels, [f"iid-{k}" for k in range(len(offsets) - 1)], images_of)


def fresh_iid_users(
    store: Store, partition: str, labels: LabelSpace, *, mean_num_images: float, distribution: SizeDistribution
) -> FederatedDataset:
    """Artificial users as pfl-research has them: names, which get other images of the partition in each round.

    Any image can be drawn by any of them, and twice by one. There are as many as ``iid_users`` makes of equal sizes.
    """
    num_images = _images_to_share(store, partition, mean_num_images)

    def drawn(generator: np.random.Generator) -> npt.NDArray[np.int64]:
        size = int(mean_num_images)
        if distribution == "poisson":
            while (size := int(generator.poisson(mean_num_images))) == 0:
                pass
        return np.sort(generator.integers(0, num_images, size=size))

    expected = np.arange(round(mean_num_images))
    client_ids = [f"iid-{k}" for k in range(int(num_images // mean_num_images))]
    return replace(_dataset(store, partition, labels, client_ids, lambda position: expected), drawn=drawn)


def _images_to_share(store: Store, partition: str, mean_num_images: float) -> int:
    num_images = store.partitions[partition].num_images
    if num_images < mean_num_images:
        raise ConfigError(
            f"mean_datapoints_per_user: {mean_num_images:g} is more than the {num_images} images of {partition!r}"
        )
    return num_images


def _dataset(
    store: Store,
    partition: str,
    labels: LabelSpace,
    client_ids: list[str],
    images_of: Callable[[int], npt.NDArray[np.int64]],
) -> FederatedDataset:
    positions = {client_id: k for k, client_id in enumerate(client_ids)}
    return FederatedDataset(store.partitions[partition], labels, client_ids, images_of, positions)
