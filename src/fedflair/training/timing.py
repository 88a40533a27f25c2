"""How fast this machine is at a run's work: a few real clients trained a few batches scored, and thrown away."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fedflair.backends.contract import Backend
from fedflair.evaluation.partition import Scoring, batch_size, score_batch
from fedflair.federated.participation import images_trained
from fedflair.federated.server import Broadcast, ServerState
from fedflair.federated.setup import TrainingSetup
from fedflair.training.client_group import ClientWork, train_group

# Of one kind of work; and of one client, whose steps are as fast however many follow.
_SECONDS = 2.0
_MOST_IMAGES = 64


@dataclass(frozen=True)
class Speed:
    """Images a second of all workers together: that steps take (None: not timed), and that are scored.

    num_steps, num_scored: images that were timed. memory, gpu_memory: bytes that process and GPU held at most.
    """

    steps: float | None
    scored: float
    num_steps: int
    num_scored: int
    memory: int
    gpu_memory: int


def speed_of(setup: TrainingSetup, state: ServerState, backend: Backend) -> Speed:
    """Times clients of a first cohort (not the run's, where that is a secret) and batches of val; nothing is kept."""
    steps, num_steps = None, 0
    if setup.worker.on_features is None:
        num_steps, seconds = _train(setup, state, backend)
        steps = num_steps / seconds
    num_scored, seconds = _score(setup, state, backend)
    on_gpu = setup.worker.device.type == "cuda"
    return Speed(
        steps,
        num_scored / seconds,
        num_steps,
        num_scored,
        _peak_memory(),
        torch.cuda.max_memory_allocated(setup.worker.device) if on_gpu else 0,
    )


def _train(setup: TrainingSetup, state: ServerState, backend: Backend) -> tuple[int, float]:
    """(images that steps took, seconds)."""
    bound = setup.mechanism.clipping_bound(state.mechanism_state)
    server = Broadcast(0, state.parameters, state.algorithm_state, bound)
    images_of = setup.worker.clients.num_images
    # Of a run over few clients the first round's may all be large, or nobody.
    drawn = setup.sampler.sample(0) or setup.worker.clients.client_ids[:1]
    chosen = [client for client in drawn if images_of(client) <= _MOST_IMAGES] or [min(drawn, key=images_of)]
    # What is compiled, captured or allocated once is not part of a run's speed.
    _drain(backend, train_group, server, ([ClientWork(chosen[0])] for _ in range(backend.num_workers)))
    started, trained = time.perf_counter(), []

    def work() -> Iterator[list[ClientWork]]:
        while time.perf_counter() - started < _SECONDS:
            for client in chosen:
                if time.perf_counter() - started > _SECONDS:
                    return
                trained.append(images_trained(setup.config, images_of(client)))
                yield [ClientWork(client)]

    _drain(backend, train_group, server, work())
    return sum(trained), time.perf_counter() - started


def _score(setup: TrainingSetup, state: ServerState, backend: Backend) -> tuple[int, float]:
    """(images that were scored, seconds)."""
    size, there = batch_size(setup.worker), setup.worker.store.partitions["val"].num_images
    batches = [range(start, min(start + size, there)) for start in range(0, there, size)]
    scoring = Scoring(state.parameters, "val")
    if setup.worker.on_features is not None:
        # What is scored then is the part of the network that has no trained parameters.
        scoring = Scoring(torch.empty(0, device=setup.worker.device), "val")
    _drain(backend, score_batch, scoring, (batches[0] for _ in range(backend.num_workers)))
    started, scored = time.perf_counter(), []

    def work() -> Iterator[range]:
        while time.perf_counter() - started < _SECONDS:
            for batch in batches:
                if time.perf_counter() - started > _SECONDS:
                    return
                scored.append(len(batch))
                yield batch

    _drain(backend, score_batch, scoring, work())
    return sum(scored), time.perf_counter() - started


def _drain(backend: Backend, task: object, shared: object, items: Iterator[object]) -> None:
    for _ in backend.map_unordered(task, shared, items):  # type: ignore[arg-type]  # either task
        pass


def _peak_memory() -> int:
    """Bytes of memory that this process held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes but on a Mac.
    return peak if sys.platform == "darwin" else 1024 * peak
