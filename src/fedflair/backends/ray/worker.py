"""What runs in a Ray worker process: it builds its own set-up and keeps one scratch model between tasks.

Imported only where Ray is used. Tensors travel as their bytes (``carry_tensors``), which Ray maps into every process of
a node without a copy; what a process then writes to, it copies first (``placed``).
"""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch
from ray.util import register_serializer

from fedflair.backends.contract import Task, Worker
from fedflair.config.train_config import TrainConfig
from fedflair.engine.allocator import keep_freed_memory
from fedflair.engine.cpu.choice import Kind
from fedflair.engine.cpu.kernels import computing_with
from fedflair.engine.flat_model import flatten
from fedflair.engine.gpu.streams import prepare_gpu
from fedflair.errors import FedflairError, WorkerError
from fedflair.federated.plugins import refuse_other_code
from fedflair.federated.setup import make_worker_setup

# Mechanisms whose cohorts are no secret, since they promise no epsilon.
_OPEN = ("none", "norm_clipping_only")


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker builds its set-up from; see ``setup.make_worker_setup``. Holds no secret of a central mechanism.

    fingerprint: of the run's store; a worker that finds another one at its place refuses.
    kernels: what the driver chose to compute with; a worker whose machine cannot do so refuses.
    features: digests of what the head is trained on; none while they are computed, None where images come in.
    code: digests of the files of the run's plugins and own network; a worker that has others refuses.
    gpu_share: share of one GPU's memory that the worker may take; 1 and more is all of it.
    """

    config: TrainConfig
    clip_order: float
    local_noise_seed: int
    fixed: Mapping[str, torch.Tensor]
    fingerprint: str
    kernels: Kind
    features: Mapping[str, str] | None
    code: Mapping[str, str]
    gpu_share: float


@dataclass(frozen=True)
class Started:
    """Where a worker runs. pid: its process. log: the file its standard error goes to, on the machine ``host``."""

    host: str
    pid: int
    log: str


@dataclass(frozen=True)
class Failed:
    """A task raised ``error``; the traceback is in the worker's log."""

    error: FedflairError


class RayWorker:
    """The actor. Its methods return ``Failed`` rather than raise, so that a lost worker is all that Ray can report."""

    def __init__(self) -> None:
        carry_tensors()
        keep_freed_memory()
        self._call = -1
        self._shared: Any = None
        self._kept: Any = None
        # As long as the process lives.
        self._computing = ExitStack()

    def start(self, plan: WorkerPlan) -> Started | Failed:
        """Builds the set-up. Must be called once, before any task."""
        try:
            self._computing.enter_context(computing_with(plan.kernels))
            setup = make_worker_setup(
                plan.config,
                plan.clip_order,
                plan.local_noise_seed,
                plan.fixed,
                plan.fingerprint,
                plan.kernels,
                plan.features,
            )
            refuse_other_code(plan.config, plan.code)
            if setup.device.type == "cpu":
                torch.set_num_threads(1)
            else:
                prepare_gpu()
                if plan.gpu_share < 1:
                    torch.cuda.set_per_process_memory_fraction(plan.gpu_share)
            hardware = plan.config.hardware
            model = flatten(setup.network, setup.device, setup.precision, cuda_graphs=hardware.cuda_graphs)
            self._worker = Worker(setup, model)
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver has to tell the user
            return _failed(error, "its set-up")
        worker = ray._private.worker.global_worker
        return Started(ray.util.get_node_ip_address(), os.getpid(), worker.get_err_file_path())

    def run(self, call: int, task: Task, shared: Any, item: Any, keep: bool) -> Any:
        """``task(worker, shared, item)``; with ``keep`` it is added to this worker's sum instead, for ``take``.

        call: number of the driver's map; ``shared`` is moved to the device once in each.
        """
        try:
            device = self._worker.model.device
            if call != self._call:
                self._call, self._shared, self._kept = call, placed(shared, device), None
            result = task(self._worker, self._shared, placed(item, device))
        except Exception as error:  # noqa: BLE001 - users' own code ran, and the driver has to tell what it raised
            return _failed(error, task.__name__, secret=self._worker.setup.clipping.mechanism not in _OPEN)
        if not keep:
            return result
        self._kept = result if self._kept is None else self._kept.add_group(result)
        return None

    def take(self) -> Any:
        """The sum of what was kept, which is then forgotten."""
        kept, self._kept = self._kept, None
        return kept

    def rest(self) -> None:
        """Forgets the round that is over, and hands back GPU memory that only the allocator still holds."""
        self._shared = self._kept = None
        self._call = -1
        if self._worker.model.device.type == "cuda":
            torch.cuda.empty_cache()


def placed(value: Any, device: torch.device, *, copy: bool = False) -> Any:
    """``value`` with its tensors on ``device``, looked for in mappings, sequences and dataclasses.

    copy: also copies tensors that are there already, so that they can be written to and hold no shared memory.
    """
    if isinstance(value, torch.Tensor):
        return value.to(device, copy=copy)
    if isinstance(value, Mapping):
        return {name: placed(part, device, copy=copy) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(placed(part, device, copy=copy) for part in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **placed(parts, device, copy=copy))
    return value


def carry_tensors() -> None:
    """Lets this process hand tensors to Ray as their bytes; to be called once it is connected."""
    register_serializer(torch.Tensor, serializer=_as_bytes, deserializer=_from_bytes)


def _as_bytes(tensor: torch.Tensor) -> tuple[npt.NDArray[np.uint8], torch.dtype, torch.Size]:
    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy(), plain.dtype, plain.shape


def _from_bytes(parts: tuple[npt.NDArray[np.uint8], torch.dtype, torch.Size]) -> torch.Tensor:
    data, dtype, shape = parts
    with warnings.catch_warnings():
        # torch cannot mark a tensor as read-only; whoever writes to it calls ``placed`` with copy first.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(data).view(dtype).reshape(shape)


def _failed(error: Exception, what: str, *, secret: bool = False) -> Failed:
    """secret: the cohort is, so that the log, which others can read, gets no message that names a client."""
    if secret and isinstance(error, FedflairError) and error.of_client:
        cause: BaseException | None = error
        while cause is not None:
            traceback.print_tb(cause.__traceback__)
            cause = cause.__cause__
    else:
        traceback.print_exc()
    sys.stderr.flush()
    if isinstance(error, FedflairError):
        return Failed(error)
    return Failed(WorkerError(f"{what} failed with {type(error).__name__}: {error}"))
