"""How work is spread: tasks are handed to workers, each of which owns one scratch model.

A task is a module-level function ``(worker, shared, item) -> result`` (``training/client_group.py``, ``evaluation/``),
so that threads and processes on other machines run the same code. ``shared`` goes out once, items one by one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from fedflair.config.train_config import TrainConfig
from fedflair.engine.cpu.choice import Kind, Precision
from fedflair.engine.flat_model import FlatModel
from fedflair.errors import FedflairError, Interrupted, WorkerError


class Computed(Protocol):
    """What a worker needs to know of a set-up to compute with its network, whatever else is in it."""

    @property
    def config(self) -> TrainConfig: ...
    @property
    def network(self) -> nn.Module: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def kernels(self) -> Kind: ...
    @property
    def precision(self) -> Precision: ...


SetupT = TypeVar("SetupT", bound=Computed, covariant=True)


@dataclass(frozen=True)
class Worker(Generic[SetupT]):
    """What one worker owns. setup: what its tasks need. model: a scratch model. stop: the user stopped it.

    stream: where its work goes on a GPU that workers share; None is torch's current one.
    """

    setup: SetupT
    model: FlatModel
    stop: threading.Event = field(default_factory=threading.Event)
    stream: torch.cuda.Stream | None = None

    def check_stop(self) -> None:
        """Raises Interrupted where the user stopped the run; tasks call it between clients."""
        if self.stop.is_set():
            raise Interrupted("stopped")


Task = Callable[[Worker[Any], Any, Any], Any]


class MapUnordered(Protocol):
    """See ``Backend``."""

    def __call__(
        self, task: Task, shared: Any, items: Iterable[Any], *, summed: bool = False
    ) -> Iterator[tuple[int, Any]]: ...


@dataclass(frozen=True)
class Backend:
    """num_workers: how many items are worked on at once.

    map_unordered: (task, shared, items) -> (position of the item, task(worker, shared, item)), as they finish; few
        items are ahead of what was taken. The first exception of a task is raised once the running items have ended.
        summed: the caller adds the results up (``UpdateSum.add_group``), so a worker may answer for several items at
        once, with their sum at the position of the first and an empty sum at the others'.
    """

    num_workers: int
    map_unordered: MapUnordered


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Raises WorkerError, naming ``what`` was worked on, for whatever is not an error of the package's own."""
    try:
        yield
    except FedflairError:
        raise
    except Exception as error:  # decoders, networks and algorithms of the user's own can fail in any way
        raise WorkerError(f"{what} failed with {type(error).__name__}: {error}") from error
