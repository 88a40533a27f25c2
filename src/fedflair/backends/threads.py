"""How work is spread: tasks are handed to workers, each of which owns one scratch model.

A task is a module-level function ``(worker, shared, item) -> result`` (``work.py``, ``evaluate.py``), so that threads
and processes on other machines run the same code. ``shared`` goes out once, items one by one.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from fedflair.config.train_config import TrainConfig
from fedflair.engine.flat_model import FlatModel, flatten
from fedflair.engine.gpu.streams import DEFAULT_IN_FLIGHT, new_stream, prepare_gpu, run_on_stream
from fedflair.engine.spares import Spare
from fedflair.errors import ConfigError, FedflairError, Interrupted, WorkerError
from fedflair.federated.setup import Setup


@dataclass(frozen=True)
class Worker:
    """What one worker owns. setup: the run's data and functions. model: a scratch model. stop: the user stopped it.

    stream: where its work goes on a GPU that workers share; None is torch's current one.
    """

    setup: Setup
    model: FlatModel
    stop: threading.Event = field(default_factory=threading.Event)
    stream: torch.cuda.Stream | None = None

    def check_stop(self) -> None:
        """Raises Interrupted where the user stopped the run; tasks call it between clients."""
        if self.stop.is_set():
            raise Interrupted("stopped")


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Raises WorkerError, naming ``what`` was worked on, for whatever is not an error of the package's own."""
    try:
        yield
    except FedflairError:
        raise
    # Work runs decoders, networks and algorithms of the user's own, so it can fail in any way that code can.
    except Exception as error:
        raise WorkerError(f"{what} failed with {type(error).__name__}: {error}") from error


Task = Callable[[Worker, Any, Any], Any]
MapUnordered = Callable[[Task, Any, Iterable[Any]], Iterator[tuple[int, Any]]]


@dataclass(frozen=True)
class Backend:
    """num_workers: how many items are worked on at once.

    map_unordered: (task, shared, items) -> (position of the item, task(worker, shared, item)), as they finish; few
        items are ahead of what was taken. The first exception of a task is raised once the running items have ended.
    """

    num_workers: int
    map_unordered: MapUnordered


def uses_ray(config: TrainConfig) -> bool:
    """Whether ``workers`` or ``ray_address`` ask for processes, rather than threads of this one."""
    return bool(config.workers) or config.ray_address is not None


def require_backend(config: TrainConfig) -> None:
    """Refuses (ConfigError) workers where Ray is not installed, and a cluster's address at which nobody listens."""
    if not uses_ray(config):
        return
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("workers: Ray is not installed; install it with: pip install 'fedflair[ray]'")
    if config.ray_address is not None:
        from fedflair.backends.ray.cluster import require_listener

        require_listener(config.ray_address)


def choose_backend(setup: Setup, stop: threading.Event | None = None) -> AbstractContextManager[Backend]:
    """Threads of this process, or Ray where ``workers`` or ``ray_address`` ask for it."""
    if not uses_ray(setup.config):
        return thread_backend(setup, stop)
    from fedflair.backends.ray.cluster import stay_on_loopback

    if setup.config.ray_address is None:
        stay_on_loopback()
    from fedflair.backends.ray.backend import ray_backend

    return ray_backend(setup, stop)


@contextmanager
def thread_backend(setup: Setup, stop: threading.Event | None = None) -> Iterator[Backend]:
    """Workers in this process. On a CPU ``num_threads`` of them (0: one a core), each with one operator thread.

    One operator thread a worker makes a client's result independent of the number of workers, and at FLAIR's median
    of two images a client it is also the faster way to use the cores. On a GPU each worker has a model and a stream of
    its own; ``num_threads`` 0 is ``streams.DEFAULT_IN_FLIGHT`` there.
    """
    on_cpu = setup.device.type == "cpu"
    num_workers = setup.config.num_threads or (_num_cores() if on_cpu else DEFAULT_IN_FLIGHT)
    stop = stop or threading.Event()
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    operator_threads = torch.get_num_threads()
    if on_cpu:
        torch.set_num_threads(1)
    else:
        prepare_gpu()
    try:
        with _threads(num_workers, "client") as executor, _threads(num_workers, "part") as lending:
            for _ in range(num_workers):
                module, config = copy.deepcopy(setup.module), setup.config
                model = flatten(module, setup.device, config.precision, cuda_graphs=config.cuda_graphs)
                model = replace(model, spares=_IdleWorkers(idle, lending))
                idle.put(Worker(setup, model, stop, new_stream(setup.device)))

            def map_unordered(task: Task, shared: Any, items: Iterable[Any]) -> Iterator[tuple[int, Any]]:
                return _map(executor, idle, num_workers, task, shared, items)

            yield Backend(num_workers, map_unordered)
    finally:
        torch.set_num_threads(operator_threads)


def _threads(count: int, name: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, name, torch.set_num_threads, (torch.get_num_threads(),))


@dataclass(frozen=True)
class _IdleWorkers:
    """Lends the models of workers that have no task. Whoever has a task for one of them waits until it is back."""

    idle: queue.SimpleQueue[Worker]
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
    idle: queue.SimpleQueue[Worker],
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


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
