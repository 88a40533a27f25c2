"""How work is spread: items are handed to workers, each of which owns one scratch model."""

from __future__ import annotations

import copy
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from fedflair.models.flat import FlatModel, flatten

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Backend:
    """num_workers: how many items are worked on at once. models: the idle scratch models, one a worker."""

    num_workers: int
    executor: ThreadPoolExecutor
    models: queue.SimpleQueue[FlatModel]

    def map_unordered(
        self, work: Callable[[FlatModel, Item], Result], items: Iterable[Item]
    ) -> Iterator[tuple[int, Result]]:
        """(position of the item, work(model, item)), as they finish; few items are ahead of what was taken.

        The first exception of a worker is raised here once the running items have ended.
        """
        pending: dict[Future[Result], int] = {}
        failed = threading.Event()

        def run(item: Item) -> Result:
            model = self.models.get()
            try:
                return work(model, item)
            except BaseException:
                failed.set()
                raise
            finally:
                self.models.put(model)

        remaining = enumerate(items)
        try:
            while True:
                while len(pending) < 2 * self.num_workers and not failed.is_set():
                    position, item = next(remaining, (-1, None))
                    if position < 0 or item is None:
                        break
                    pending[self.executor.submit(run, item)] = position
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    position = pending.pop(future)
                    yield position, future.result()
        finally:
            for future in pending:
                future.cancel()
            wait(pending)


@contextmanager
def thread_backend(module: nn.Module, device: torch.device, num_threads: int) -> Iterator[Backend]:
    """Workers in this process. On a CPU ``num_threads`` of them (0: one a core), each with one operator thread.

    One operator thread a worker makes a client's result independent of the number of workers, and at FLAIR's median
    of two images a client it is also the faster way to use the cores.
    """
    num_workers = (num_threads or _num_cores()) if device.type == "cpu" else 1
    models: queue.SimpleQueue[FlatModel] = queue.SimpleQueue()
    for _ in range(num_workers):
        models.put(flatten(copy.deepcopy(module), device))
    operator_threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(num_workers, "client", torch.set_num_threads, (torch.get_num_threads(),)) as executor:
            yield Backend(num_workers, executor, models)
    finally:
        torch.set_num_threads(operator_threads)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
