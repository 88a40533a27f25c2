"""A store for people with their own code: users, their photographs as ``torch`` datasets, and selections of both.

    dataset = fedflair.data.open("flair_federated.hdf5")
    for user_id in dataset.users["train"]:
        loader = torch.utils.data.DataLoader(dataset.client(user_id), batch_size=16)

Every selection (``filter_users``, ``sample_users``, ``cap_images``, ``select_labels``, ``binary_label``,
``fine_grained``) gives a new Dataset and leaves the old one as it is. ``adapters`` hands datasets to other frameworks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset as TorchDataset

from fedflair.data.images.decode import decode_rgb
from fedflair.data.images.jpeg import SIDE
from fedflair.data.store.labels import LabelSpace, label_space
from fedflair.data.store.packed import Partition, Store, open_store
from fedflair.errors import ConfigError, DataError
from fedflair.sampling import stream
from fedflair.system.cores import num_cores
from fedflair.system.terminal import cell

Transform = Callable[[torch.Tensor], Any]
Indices = range | npt.NDArray[np.int64]


@dataclass(frozen=True)
class File:
    """A store's file as it was when it was opened: a small thing to send to other processes, which open it anew."""

    path: Path
    size: int
    modified: int

    def store(self) -> Store:
        """The store, opened once a process. Raises DataError where the file is gone or was written anew since."""
        return _reopen(self)


@lru_cache(maxsize=8)
def _reopen(file: File) -> Store:
    if _file(file.path) != file:
        raise DataError(f"{file.path}: has changed since it was opened; open it again")
    return open_store(file.path)


def _file(path: Path) -> File:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"{path}: no such store ({error.strerror}); make one with 'fedflair prepare' or 'fedflair synthesize'"
        ) from error
    return File(path, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Labels:
    """The labels of a target: all coarse or all fine-grained ones of the store, or ``subset`` of them in its order."""

    fine: bool = False
    subset: tuple[str, ...] | None = None


@lru_cache(maxsize=64)
def _space(file: File, labels: Labels) -> LabelSpace:
    return label_space(file.store(), fine=labels.fine, subset=labels.subset)


def open_dataset(path: str | Path) -> Dataset:
    """All users of the store at ``path``, with its coarse labels.

    Raises DataError where there is no store that can be read.
    """
    file = _file(Path(path).absolute())
    store = file.store()
    clients = {
        name: {user_id: partition.user_slice(user) for user, user_id in enumerate(partition.user_ids)}
        for name, partition in store.partitions.items()
    }
    return Dataset(file, clients, Labels())


@dataclass(frozen=True, eq=False)
class ImageDataset(TorchDataset[tuple[Any, torch.Tensor]]):
    """Some photographs of one partition, decoded as they are asked for; works with DataLoader workers.

    ``dataset[i]`` is the photograph as uint8 [3, 256, 256], or what ``transform`` makes of it, and its labels as 0/1 in
    float32 [num_labels]. Pickles to its indices; the store is opened anew where it arrives.

    user_id: whose they are; None where they are several users'.
    """

    file: File
    partition: str
    images: Indices = field(repr=False)
    labels: Labels = field(repr=False)
    user_id: str | None = None
    transform: Transform | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Any, torch.Tensor]:
        image = int(self.images[position])
        pixels = torch.from_numpy(decode_rgb(self._partition.encoded(image))).permute(2, 0, 1)
        targets = torch.from_numpy(self._targets(range(image, image + 1))[0])
        return (pixels if self.transform is None else self.transform(pixels)), targets

    @property
    def _partition(self) -> Partition:
        return self.file.store().partitions[self.partition]

    def encoded(self, position: int) -> npt.NDArray[np.uint8]:
        """The photograph as it is stored (JPEG, or PNG): uint8 [bytes], read from the file here and now."""
        return self._partition.encoded(int(self.images[position]))

    def encoded_images(self) -> list[npt.NDArray[np.uint8]]:
        """All photographs as they are stored, asked of the disk in one go."""
        partition = self._partition
        partition.prefetch(self.images)
        return [partition.encoded(int(image)) for image in self.images]

    def pixels(self) -> npt.NDArray[np.uint8]:
        """All photographs, decoded on all cores: uint8 [n, 256, 256, 3]."""
        encoded = self.encoded_images()
        decoded = np.empty((len(self), SIDE, SIDE, 3), dtype=np.uint8)

        def decode(position: int) -> None:
            decoded[position] = decode_rgb(encoded[position])

        positions, num_threads = range(len(self)), min(len(self), num_cores())
        if num_threads > 1:
            # Threads are enough: Pillow decodes without holding the interpreter.
            with ThreadPoolExecutor(num_threads) as pool:
                list(pool.map(decode, positions))
        else:
            list(map(decode, positions))
        return decoded

    def targets(self) -> npt.NDArray[np.float32]:
        """The labels of all photographs, without decoding one: float32 [n, num_labels], 0 or 1."""
        return self._targets(self.images)

    def _targets(self, images: Indices) -> npt.NDArray[np.float32]:
        return _space(self.file, self.labels).targets(self._partition, images).astype(np.float32)

    def image_ids(self) -> npt.NDArray[np.int64]:
        """The numbers that the photographs bear in FLAIR: int64 [n]."""
        return self._partition.columns.image_ids[np.asarray(self.images, dtype=np.int64)]

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of a target's columns."""
        return _space(self.file, self.labels).names

    def names(self, *, fine: bool) -> list[tuple[str, ...]]:
        """The names of the labels of each photograph; of the kind that is selected, only the selected ones."""
        partition, known = self._partition, self.file.store().label_names(fine=fine)
        wanted = set(self.label_names if fine == self.labels.fine else known)
        of_image = ([known[k] for k in partition.label_indices(int(image), fine=fine)] for image in self.images)
        return [tuple(name for name in names if name in wanted) for names in of_image]

    def label_counts(self) -> dict[str, int]:
        """Label -> how many of the photographs have it."""
        counts = self.targets().sum(axis=0, dtype=np.int64)
        return dict(zip(self.label_names, counts.tolist()))


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """The users of a store that are selected, the photographs of each, and the labels of a target.

    clients: partition -> user id -> indices of the user's photographs in the partition, in the store's order.
    """

    file: File
    clients: Mapping[str, Mapping[str, Indices]] = field(repr=False)
    labels: Labels = field(repr=False)

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{name} {len(of_user):,} users {self.num_images(name):,} images" for name, of_user in self.clients.items()
        )
        return f"<Dataset {cell(self.file.path.name)}: {sizes}; {len(self.label_names):,} labels>"

    @property
    def users(self) -> dict[str, tuple[str, ...]]:
        """Partition -> ids of its users, in sorted order."""
        return {name: tuple(of_user) for name, of_user in self.clients.items()}

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of a target's columns."""
        return _space(self.file, self.labels).names

    def num_images(self, partition: str) -> int:
        """How many photographs a partition has."""
        return sum(map(len, self.of_partition(partition).values()))

    def client(self, user_id: str, transform: Transform | None = None) -> ImageDataset:
        """The photographs of one user, of whichever partition. Raises ConfigError where it is not among ``users``."""
        for partition, of_user in self.clients.items():
            if user_id in of_user:
                return ImageDataset(self.file, partition, of_user[user_id], self.labels, user_id, transform)
        raise ConfigError(f"user_id {user_id!r} is not among the users of this dataset; 'users' lists them")

    def central(self, partition: str, transform: Transform | None = None) -> ImageDataset:
        """The photographs of all users of a partition as one dataset. Raises ConfigError where there is no such."""
        return self.pooled(partition, self.of_partition(partition), transform)

    def pooled(self, partition: str, user_ids: Iterable[str], transform: Transform | None = None) -> ImageDataset:
        """The photographs of some users of a partition as one dataset, user after user."""
        of_user = self.of_partition(partition)
        images = _joined([of_user[user_id] for user_id in user_ids])
        return ImageDataset(self.file, partition, images, self.labels, None, transform)

    def of_partition(self, partition: str) -> Mapping[str, Indices]:
        """User id -> indices of the photographs. Raises ConfigError where there is no such partition."""
        if partition not in self.clients:
            raise ConfigError(f"partition {partition!r} is not in this dataset; it has {', '.join(self.clients)}")
        return self.clients[partition]

    def filter_users(self, keep: Callable[[ImageDataset], bool] = bool, *, min_images: int = 1) -> Dataset:
        """The users with at least ``min_images`` photographs for whose dataset ``keep`` says True.

        ``keep`` sees what :meth:`client` returns: ``len(user)``, ``user.user_id``, ``user.label_counts()``.
        """
        clients = {
            partition: {
                user_id: images
                for user_id, images in of_user.items()
                if len(images) >= min_images and keep(ImageDataset(self.file, partition, images, self.labels, user_id))
            }
            for partition, of_user in self.clients.items()
        }
        return replace(self, clients=clients)

    def sample_users(self, share: float, *, seed: int) -> Dataset:
        """A random ``share`` of each partition's users, rounded, at least one.

        The same seed gives the same users, and of two shares the larger one holds all users of the smaller one.
        Raises ConfigError where ``share`` is not in (0, 1].
        """
        if not 0 < share <= 1:
            raise ConfigError(f"share {share} is out of range; it must be more than 0 and at most 1")
        clients = {}
        for partition, of_user in self.clients.items():
            order = stream(seed, f"sample users of {partition}").permutation(len(of_user))
            chosen = np.sort(order[: max(1, round(share * len(of_user)))])
            user_ids = list(of_user)
            clients[partition] = {user_ids[k]: of_user[user_ids[k]] for k in chosen.tolist()}
        return replace(self, clients=clients)

    def cap_images(self, max_images: int, *, seed: int) -> Dataset:
        """At most ``max_images`` photographs of each user, chosen at random, once; the same ones for the same seed.

        Raises ConfigError where ``max_images`` is less than 1.
        """
        if max_images < 1:
            raise ConfigError(f"max_images {max_images} is out of range; it must be at least 1")

        def capped(user_id: str, images: Indices) -> Indices:
            if len(images) <= max_images:
                return images
            chosen = stream(seed, "cap images", client=user_id).choice(len(images), size=max_images, replace=False)
            return np.asarray(images, dtype=np.int64)[np.sort(chosen)]

        clients = {
            partition: {user_id: capped(user_id, images) for user_id, images in of_user.items()}
            for partition, of_user in self.clients.items()
        }
        return replace(self, clients=clients)

    def fine_grained(self) -> Dataset:
        """The same photographs with all fine-grained labels of the store as targets."""
        return replace(self, labels=Labels(fine=True))

    def select_labels(self, names: Sequence[str]) -> Dataset:
        """The same photographs with these labels, of the kind that is selected, as targets, in this order.

        A photograph that has none of them stays, with a target of zeros. Raises ConfigError for an unknown name, one
        given twice, or none at all.
        """
        if len(set(names)) != len(names) or not names:
            raise ConfigError(f"labels {list(names)!r}: name at least one, and each once")
        labels = replace(self.labels, subset=tuple(names))
        _space(self.file, labels)
        return replace(self, labels=labels)

    def binary_label(self, name: str) -> Dataset:
        """The same photographs with one label as the target: float32 [1], 1 where a photograph has it."""
        return self.select_labels((name,))


def _joined(parts: list[Indices]) -> Indices:
    """The indices one after the other; a range where they follow on each other, as those of all users do."""
    ranges = [part for part in parts if isinstance(part, range)]
    if len(ranges) == len(parts) and all(one.stop == other.start for one, other in pairwise(ranges)):
        return range(ranges[0].start, ranges[-1].stop) if ranges else range(0)
    return np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
