"""What a model says of photographs: the probability of each label, of files or of a store's partition."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from fedflair.backends.contract import Worker, naming
from fedflair.backends.threads import thread_backend
from fedflair.data.images.limits import DEFAULT, Limits
from fedflair.data.images.photographs import Photograph, checked, read_photograph
from fedflair.data.store.packed import Partition
from fedflair.errors import DataError
from fedflair.evaluation.opened import Model
from fedflair.evaluation.partition import images_at_once, score_images
from fedflair.federated.model_setup import ModelSetup


class Photographs(Protocol):
    """What a model is to look at, by position."""

    def __len__(self) -> int: ...

    def name(self, position: int) -> str:
        """What people call it."""
        ...

    def read(self, position: int) -> Photograph:
        """Raises DataError, naming it, where it cannot be read."""
        ...


@dataclass(frozen=True)
class Files:
    """Files of photographs. limits: what one of them may hold at most."""

    paths: tuple[Path, ...]
    limits: Limits = DEFAULT

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, position: int) -> str:
        return str(self.paths[position])

    def read(self, position: int) -> Photograph:
        return read_photograph(self.paths[position], self.limits)


@dataclass(frozen=True)
class Stored:
    """The images of a store's partition, in its order."""

    partition: Partition

    def __len__(self) -> int:
        return self.partition.num_images

    def name(self, position: int) -> str:
        columns = self.partition.columns
        user = int(np.searchsorted(columns.user_offsets, position, side="right")) - 1
        return f"{columns.user_ids[user]}/{columns.image_ids[position]}"

    def read(self, position: int) -> Photograph:
        return checked(self.partition.encoded(position))


@dataclass(frozen=True)
class Prediction:
    """probabilities: float32 [L], in the order of the model's labels. photograph: as the network saw it, if kept."""

    name: str
    probabilities: npt.NDArray[np.float32]
    photograph: Photograph | None = None


@dataclass(frozen=True)
class Unread:
    """A photograph that could not be read. why: with its name."""

    name: str
    why: str


@dataclass(frozen=True)
class _Looking:
    """What every worker gets, once. parameters: float32 [P]. keep: how many photographs, the first, to hand back."""

    parameters: torch.Tensor
    photographs: Photographs
    keep: int


def predict(
    model: Model, photographs: Photographs, *, keep: int = 0, stop: threading.Event | None = None
) -> Iterator[Prediction | Unread]:
    """Looks at the photographs, and tells in their order what it saw, as it goes.

    keep: how many of them, from the first, come back with their prediction. The batches are those of an evaluation, so
    of a store's partition the probabilities are exactly the sigmoid of its logits.
    """
    size = images_at_once(model.setup)
    batches = [range(start, min(start + size, len(photographs))) for start in range(0, len(photographs), size)]
    looking = _Looking(model.parameters, photographs, keep)
    waiting: dict[int, list[Prediction | Unread]] = {}
    told = 0
    with thread_backend(model.setup, stop) as backend:
        for position, found in backend.map_unordered(_look, looking, batches):
            waiting[position] = found
            while told in waiting:
                yield from waiting.pop(told)
                told += 1


def _look(worker: Worker[ModelSetup], looking: _Looking, batch: range) -> list[Prediction | Unread]:
    worker.check_stop()
    with naming(f"looking at photographs {batch.start + 1} to {batch.stop}"):
        read = [_read(looking.photographs, position) for position in batch]
        whole = [one for one in read if isinstance(one, Photograph)]
        encoded = [one.encoded for one in whole]
        logits = score_images(worker, looking.parameters, encoded) if encoded else np.empty((0, 0), np.float32)
    rows = iter(torch.from_numpy(logits).sigmoid().numpy())
    found: list[Prediction | Unread] = []
    for position, one in zip(batch, read):
        name = looking.photographs.name(position)
        if isinstance(one, Photograph):
            found.append(Prediction(name, next(rows), one if position < looking.keep else None))
        else:
            found.append(Unread(name, one))
    return found


def _read(photographs: Photographs, position: int) -> Photograph | str:
    """The photograph, or why there is none."""
    try:
        return photographs.read(position)
    except DataError as error:
        return str(error)
