"""Workers in this process, each with a scratch model and one operator thread of its own."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from fedflair.backends.contract import Backend, Computed, Task, Worker, naming
from fedflair.config.train_config import TrainConfig
from fedflair.engine.cpu.kernels import computing_with
from fedflair.engine.flat_model import Spare, flatten
from fedflair.engine.gpu.streams import DEFAULT_IN_FLIGHT, new_stream, prepare_gpu, run_on_stream
from fedflair.system.cores import num_cores


def num_threads(config: TrainConfig, device: torch.device) -> int:
    """Workers of a process, with 0 of the option resolved."""
    return config.hardware.num_threads or (num_cores() if device.type == "cpu" else DEFAULT_IN_FLIGHT)


@contextmanager
def thread_backend(setup: Computed, stop: threading.Event | None = None) -> Iterator[Backend]:
    """Workers in this process. On a CPU ``num_threads`` of them (0: one a core), each with one operator thread.

    One operator thread a worker makes a client's result independent of the number of workers, and at FLAIR's median
    of two images a client it is also the faster way to use the cores. On a GPU each worker has a model and a stream of
    its own; ``num_threads`` 0 is ``streams.DEFAULT_IN_FLIGHT`` there.
    """
    on_cpu = setup.device.type == "cpu"
    num_workers = num_threads(setup.config, setup.device)
    stop = stop or threading.Event()
    idle: queue.SimpleQueue[Worker[Computed]] = queue.SimpleQueue()
    operator_threads = torch.get_num_threads()
    if on_cpu:
        torch.set_num_threads(1)
    else:
        prepare_gpu()
    try:
        with (
            computing_with(setup.kernels),
            _threads(num_workers, "client") as executor,
            _threads(num_workers, "part") as lending,
        ):
            for _ in range(num_workers):
                module, hardware = copy.deepcopy(setup.network), setup.config.hardware
                model = flatten(module, setup.device, setup.precision, cuda_graphs=hardware.cuda_graphs)
                model = replace(model, spares=_IdleWorkers(idle, lending))
                idle.put(Worker(setup, model, stop, new_stream(setup.device)))

            def map_unordered(
                task: Task, shared: Any, items: Iterable[Any], *, summed: bool = False
            ) -> Iterator[tuple[int, Any]]:
                return _map(executor, idle, num_workers, task, shared, items)

            yield Backend(num_workers, map_unordered)
    finally:
        torch.set_num_threads(operator_threads)


def _threads(count: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, name, torch.set_num_threads, (torch.get_num_threads(),))


@dataclass(frozen=True)
class _IdleWorkers:
    """Lends the models of workers that have no task. Whoever has a task for one of them waits until it is back."""

    idle: queue.SimpleQueue[Worker[Computed]]
    executor: ThreadPoolExecutor

    def lend(self) -> Spare | None:
        try:
            worker = self.idle.get_nowait()
        except queue.Empty:
            return None
        started: list[Future[Any]] = []

        def start(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            started.append(self.executor.submit(function, worker.model, *arguments))
            return started[-1]

        def give_back() -> None:
            wait(started)
            self.idle.put(worker)

        return Spare(worker.model, start, give_back)


def _map(
    executor: ThreadPoolExecutor,
    idle: queue.SimpleQueue[Worker[Computed]],
    num_workers: int,
    task: Task,
    shared: Any,
    items: Iterable[Any],
) -> Iterator[tuple[int, Any]]:
    pending: dict[Future[Any], int] = {}
    failed = threading.Event()

    def run(item: Any) -> Any:
        worker = idle.get()
        try:
            if worker.stream is None:
                return task(worker, shared, item)
            # What goes wrong on the device may show only when it is waited for.
            with naming("work on the GPU"):
                return run_on_stream(worker.stream, task, worker, shared, item)
        except BaseException:
            failed.set()
            raise
        finally:
            idle.put(worker)

    remaining = enumerate(items)
    try:
        while True:
            while len(pending) < 2 * num_workers and not failed.is_set():
                position, item = next(remaining, (-1, None))
                if position < 0:
                    break
                pending[executor.submit(run, item)] = position
            if not pending:
                return
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                position = pending.pop(future)
                yield position, future.result()
    finally:
        for future in pending:
            future.cancel()
        wait(pending)
