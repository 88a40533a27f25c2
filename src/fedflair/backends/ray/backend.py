"""Work spread over Ray actors that may die, hang or join at any time, with results as if none had.

Items are handed out one by one to whichever worker is free, so that the caller's order (largest first) is the schedule.
An item whose worker is lost, hangs or fails is done again elsewhere; since a task depends on nothing but its arguments,
it gives the same bits there. A worker that did not answer well is replaced, whatever the reason.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ray
import torch

from fedflair.backends.contract import Backend, Task
from fedflair.backends.ray.cluster import Reservation, connected, raylet_watch, say
from fedflair.backends.ray.worker import Failed, RayWorker, Started, WorkerPlan, carry_tensors, placed
from fedflair.config.names import OWN_NAMES
from fedflair.engine.cpu.kernels import computing_with
from fedflair.engine.flat_model import frozen_tensors
from fedflair.errors import ConfigError, FedflairError, Interrupted, WorkerError
from fedflair.federated.aggregate import UpdateSum
from fedflair.federated.plugins import own_code_of
from fedflair.federated.setup import TrainingSetup
from fedflair.privacy.ledger.record import is_due
from fedflair.privacy.mechanisms import local_noise_seed
from fedflair.privacy.mechanisms.group_clipping import clipping_in

# An error that happens twice, in two processes, is taken for the client's own. A process may be lost for reasons that
# have nothing to do with what it was doing, so it takes more of those.
MAX_FAILURES = 2
MAX_LOSSES = 5

# How long a run waits for its first worker: a cloud may have to start a machine for it.
START_SECONDS = 900
TELL_SECONDS = 30

_POLL_SECONDS = 0.2


@dataclass(eq=False)
class _Item:
    position: int
    value: Any
    failures: int = 0
    losses: int = 0


@dataclass(eq=False)
class _Slot:
    """One worker. pending: what it is doing now. item: of that, where it is an item. kept: items in its own sum."""

    number: int
    actor: Any
    pending: Any
    started: Started | None = None
    item: _Item | None = None
    deadline: float = float("inf")
    kept: list[_Item] = field(default_factory=list)

    @property
    def name(self) -> str:
        if self.started is None:
            return f"worker {self.number}"
        return f"worker {self.number} (process {self.started.pid} on {self.started.host})"

    @property
    def log(self) -> str:
        return "" if self.started is None else f"; log: {self.started.log}"


@contextmanager
def ray_backend(setup: TrainingSetup, stop: threading.Event | None = None) -> Iterator[Backend]:
    """Workers in processes of their own, on this machine or at ``ray_address``."""
    on_cpu, operator_threads = setup.worker.device.type == "cpu", torch.get_num_threads()
    with (
        computing_with(setup.worker.kernels),
        connected(setup.config.hardware) as reservation,
        raylet_watch() as raylet_alive,
    ):
        carry_tensors()
        if on_cpu:
            torch.set_num_threads(1)
        pool = _Pool(setup, reservation, stop or threading.Event(), raylet_alive)
        try:
            pool.fill()
            yield Backend(reservation.num_workers, pool.map_unordered)
        finally:
            pool.close()
            torch.set_num_threads(operator_threads)


class _Pool:
    """The workers of a run: ``num_workers`` of them, some of which may be waiting for a place in the cluster."""

    def __init__(
        self, setup: TrainingSetup, reservation: Reservation, stop: threading.Event, raylet_alive: Callable[[], bool]
    ) -> None:
        config = setup.config
        self._config, self._device, self._stop, self._raylet_alive = config, setup.worker.device, stop, raylet_alive
        self._num_workers = reservation.num_workers
        self._plan = ray.put(worker_plan(setup, reservation.gpus))
        self._make = ray.remote(RayWorker).options(
            num_cpus=reservation.cpus, num_gpus=reservation.gpus, max_restarts=0, scheduling_strategy="SPREAD"
        )
        # Whoever is in its cohorts is told nobody on the terminal.
        self._secret_cohorts = is_due(setup.mechanism)
        self._slots: list[_Slot] = []
        self._numbers, self._calls = itertools.count(1), itertools.count()
        self._alive_since, self._told = time.monotonic(), False
        self._needs = f"{reservation.cpus:g} cores and {reservation.gpus:g} GPUs"

    def fill(self) -> None:
        """Asks Ray for the workers that are missing; they join when they are ready."""
        while len(self._slots) < self._num_workers:
            actor = self._make.remote()
            self._slots.append(_Slot(next(self._numbers), actor, actor.start.remote(self._plan)))

    def close(self) -> None:
        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots = []

    def map_unordered(
        self, task: Task, shared: Any, items: Iterable[Any], *, summed: bool = False
    ) -> Iterator[tuple[int, Any]]:
        """See ``Backend``. What is summed comes back as one sum a worker where ``reduction`` is fast."""
        try:
            yield from self._map(task, shared, items, keep=summed and self._config.hardware.reduction == "fast")
        except ray.exceptions.RayError as error:
            raise WorkerError(f"Ray failed: {_reason(error)}") from error

    def _map(self, task: Task, shared: Any, items: Iterable[Any], *, keep: bool) -> Iterator[tuple[int, Any]]:
        # Where its raylet is lost, Ray ends this process in the middle of a put.
        self._check()
        call = next(self._calls)
        shared_ref = ray.put(shared)
        remaining = (_Item(position, value) for position, value in enumerate(items))
        waiting: deque[_Item] = deque()
        self._alive_since = time.monotonic()

        def hand_out() -> None:
            for slot in self._slots:
                waiting.extend(itertools.islice(remaining, 0 if waiting else 1))
                if waiting and slot.pending is None and slot.started is not None:
                    slot.item = waiting.popleft()
                    self._assign(slot, slot.actor.run.remote(call, task, shared_ref, slot.item.value, keep))
            waiting.extend(itertools.islice(remaining, 0 if waiting else 1))

        try:
            while True:
                self._check()
                self.fill()
                hand_out()
                if not any(slot.item for slot in self._slots) and not waiting:
                    holders = [slot for slot in self._slots if slot.kept]
                    if not holders:
                        return
                    for slot in holders:
                        if slot.pending is None:
                            self._assign(slot, slot.actor.take.remote())
                answers = deque(answer for slot in self._answered() for answer in self._settle(slot, waiting, keep))
                # The workers have their next items before this process turns to what they sent.
                hand_out()
                while answers:
                    yield self._owned(*answers.popleft())
        finally:
            for slot in [slot for slot in self._slots if slot.item or slot.kept]:
                self._drop(slot)
            for slot in self._slots:
                if slot.started is not None:
                    slot.actor.rest.remote()

    def _assign(self, slot: _Slot, reference: Any) -> None:
        slot.pending, slot.deadline = reference, time.monotonic() + self._config.hardware.worker_timeout

    def _answered(self) -> list[_Slot]:
        """The workers that have answered, or should have: waits a moment for one."""
        by_reference = {slot.pending: slot for slot in self._slots if slot.pending is not None}
        if not by_reference:
            return []
        ready, _ = ray.wait(list(by_reference), timeout=_POLL_SECONDS)
        if ready:
            ready, _ = ray.wait(list(by_reference), num_returns=len(by_reference), timeout=0)
        now = time.monotonic()
        late = [slot for slot in self._slots if slot.pending is not None and slot.deadline < now]
        answered = [by_reference[reference] for reference in ready]
        if answered or any(slot.started for slot in self._slots):
            self._alive_since = now
        elif now - self._alive_since > TELL_SECONDS and not self._told:
            self._told = True
            say(f"no worker has a place yet; each needs {self._needs}")
        elif now - self._alive_since > START_SECONDS:
            raise WorkerError(
                f"workers: none could start in {START_SECONDS} s; each needs {self._needs}, free on one node"
            )
        return answered + [slot for slot in late if slot not in answered]

    def _settle(self, slot: _Slot, waiting: deque[_Item], keep: bool) -> list[tuple[int, Any]]:
        """Takes in a worker's answer, still in shared memory; what was lost or failed goes first in ``waiting``."""
        try:
            answer = ray.get(slot.pending, timeout=0)
        except ray.exceptions.GetTimeoutError:
            self._lose(slot, waiting, f"did not answer within {self._config.hardware.worker_timeout:g} s")
            return []
        except ray.exceptions.RayError as error:
            self._lose(slot, waiting, f"was lost ({_reason(error)})")
            return []
        item, slot.item, slot.pending, slot.deadline = slot.item, None, None, float("inf")
        if isinstance(answer, Failed):
            self._fail(slot, item, waiting, answer.error)
            return []
        if isinstance(answer, Started):
            slot.started = answer
            return []
        if item is not None and not keep:
            return [(item.position, answer)]
        if item is not None:
            slot.kept.append(item)
            return []
        first, *rest = slot.kept
        slot.kept = []
        return [(first.position, answer), *((item.position, UpdateSum()) for item in rest)]

    def _owned(self, position: int, answer: Any) -> tuple[int, Any]:
        return position, placed(answer, self._device, copy=True)

    def _lose(self, slot: _Slot, waiting: deque[_Item], what: str) -> None:
        # Workers end with their node's raylet.
        self._check()
        lost = [*([slot.item] if slot.item else []), *slot.kept]
        self._drop(slot)
        if slot.item is not None:
            slot.item.losses += 1
            if slot.item.losses >= MAX_LOSSES:
                error = WorkerError(
                    f"{named(slot.item.value)}: lost {MAX_LOSSES} times with their worker; the last, {slot.name}, "
                    f"{what}{slot.log}"
                )
                error.of_client = _names_clients(slot.item.value)
                raise error
        waiting.extendleft(reversed(lost))
        doing = "; its work is done again elsewhere" if lost else ""
        say(f"{slot.name} {what}{doing}{slot.log}")

    def _fail(self, slot: _Slot, item: _Item | None, waiting: deque[_Item], error: FedflairError) -> None:
        kept = slot.kept
        self._drop(slot)
        told = str(error)
        error.args = (f"{error}{slot.log}",)
        if item is None or item.failures + 1 >= MAX_FAILURES:
            raise error
        if self._secret_cohorts and error.of_client:
            told = f"the work on a client failed on {slot.name}"
        item.failures += 1
        waiting.extendleft(reversed([item, *kept]))
        say(f"{told}; tried once more elsewhere{slot.log}")

    def _drop(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        with suppress(ray.exceptions.RayError):
            ray.kill(slot.actor)

    def _check(self) -> None:
        """Raises Interrupted where the user stopped the run, WorkerError where this node's Ray is no more."""
        if self._stop.is_set():
            raise Interrupted("stopped")
        if not self._raylet_alive():
            raise WorkerError("cut off from Ray: its process here (raylet) was lost")


def worker_plan(setup: TrainingSetup, gpus: float) -> WorkerPlan:
    """What the run's workers are built from. Its one secret is the seed of clients' own noise, where there is any."""
    config, private = setup.config, setup.worker.local_mechanism.name != "none"
    fixed = frozen_tensors(setup.worker.module)
    order = float(setup.mechanism.description.get("order", 2.0))
    _refuse_own_clipping(setup, order)
    return WorkerPlan(
        config=config.changed(data_path=config.data.data_path.absolute()),
        clip_order=order,
        local_noise_seed=local_noise_seed(setup.noise_seed) if private else 0,
        fixed=fixed,
        fingerprint=setup.worker.store.fingerprint,
        kernels=setup.worker.kernels,
        features=None if setup.worker.on_features is None else setup.worker.on_features.digests(),
        code=own_code_of(config),
        gpu_share=gpus or 1.0,
    )


def _refuse_own_clipping(setup: TrainingSetup, order: float) -> None:
    """Raises ConfigError where a plugin's mechanism clips in a way of its own, of which workers know nothing."""
    name = setup.config.central_privacy.central_privacy_mechanism
    if name in OWN_NAMES["central_privacy_mechanism"]:
        return
    probe = torch.randn(257, generator=torch.Generator().manual_seed(0))
    theirs, ours = probe.clone(), probe.clone()
    setup.mechanism.clip(theirs, 1.0)
    clipping_in(name, order, setup.config.cohort.cohort_size).clip(ours, 1.0)
    if not torch.equal(theirs, ours):
        raise ConfigError(
            f"central_privacy_mechanism: {name} does not clip as clip_update does in the norm of its description's "
            "order, which is all that workers can be told; use --workers 0"
        )


def named(value: Any) -> str:
    """What an item is called in a message: its clients, or its images."""
    if isinstance(value, range):
        return f"images {value.start} to {value.stop - 1}"
    if _names_clients(value):
        return "clients " + ", ".join(work.client_id for work in value)
    return repr(value)[:80]


def _names_clients(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and hasattr(value[0], "client_id")


def _reason(error: ray.exceptions.RayError) -> str:
    """The line of Ray's many that says why."""
    lines = [line for line in str(error).splitlines() if line and not line.startswith("\t")]
    return f"{type(error).__name__}: {lines[-1][:160] if lines else ''}"
