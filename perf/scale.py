"""What Ray costs: rounds with 2 workers against rounds with 2 threads, scaling over workers, and the time of a client.

    python perf/scale.py                                       # ResNet-18 at 224 pixels, about 10 minutes on 2 cores
    python perf/scale.py --model_type squeezenet1_1 --image_size 64

Rounds of 200 clients of a FLAIR-like store, each cut at 16 images. Threads and workers take the same rounds from the
same state, in turn; each round gives a ratio, and their median counts. So does processor time, of this process and of
all that it started, which a busy machine disturbs less. Both include aggregation, neither includes evaluation. Ray
starts workers at a lower priority (nice 15), which is switched off here: else other programs would slow only them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedflair.backends.choice import choose_backend
from fedflair.backends.contract import Backend
from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.data.synthetic.synthesize import synthesize
from fedflair.federated.aggregate import cohort_groups
from fedflair.federated.server import Broadcast, ServerState
from fedflair.federated.setup import TrainingSetup, initial_state, make_setup
from fedflair.training.client_group import ClientWork, train_group
from fedflair.training.round import run_round
from processes import descendants, processor_seconds

LIMIT = 0.05
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as Ray spells it


@dataclass(frozen=True)
class Cost:
    """Of a round. seconds: from its start to its end. processor: of all processes together."""

    seconds: float
    processor: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_type", default="resnet18")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--cohort_size", type=int, default=200)
    parser.add_argument("--max_num_user_images", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.hdf5"
        with contextlib.redirect_stdout(sys.stderr):
            synthesize(output=store, num_users=2 * arguments.cohort_size)
        config = TrainConfig.of(
            data_path=store,
            pretrained=False,
            device="cpu",
            model_type=arguments.model_type,
            image_size=arguments.image_size,
            cohort_size=arguments.cohort_size,
            max_num_user_images=arguments.max_num_user_images,
            workers=2,
            num_threads=2,
        )
        setup = make_setup(config, noise_seed=0)
        half = make_setup(config.changed(cohort_size=arguments.cohort_size // 2), noise_seed=0)
        state = initial_state(setup)
        fixed, per_image = client_time(setup, state)
        print(f"{arguments.model_type} at {arguments.image_size} px, {state.parameters.numel():,} parameters")
        print(f"a client          {fixed:.3f} s + {per_image:.4f} s an image (2 epochs, one core)", flush=True)
        with thread_backend(setup.worker) as threads, choose_backend(setup) as workers:
            warm_up(setup, state, [threads, workers])
            in_threads, in_workers = in_turn(setup, state, [threads, workers], arguments.repeats)
        with choose_backend(make_setup(config.changed(workers=1), noise_seed=0)) as worker:
            warm_up(setup, state, [worker])
            (strong,) = in_turn(setup, state, [worker], 1)
            (weak,) = in_turn(half, state, [worker], 1)
    groups = len(groups_of(setup, 1))
    print(f"a round           {arguments.cohort_size} clients, {num_images(setup, 1)} images, {groups} groups")
    for what in ("seconds", "processor"):
        pairs = [(getattr(one, what), getattr(two, what)) for one, two in zip(in_threads, in_workers)]
        share = statistics.median(two / one - 1 for one, two in pairs)
        print(
            f"{what:<18}threads {statistics.median(one for one, _ in pairs):.2f}, "
            f"workers {statistics.median(two for _, two in pairs):.2f}: {share:+.1%} "
            f"(limit {LIMIT:.0%}): {'ok' if share < LIMIT else 'TOO MUCH'}; "
            + ", ".join(f"{one:.2f} -> {two:.2f}" for one, two in pairs)
        )
    size = state.parameters.numel() * 4 / 1e6
    print(f"bytes a round     {size:.0f} MB to each node, {groups} x {size:.0f} MB back; fast: once a worker")
    first = in_workers[0].seconds
    speedup = strong[0].seconds / first
    print(f"strong scaling    the same round: 1 worker {strong[0].seconds:.1f} s, 2 workers {first:.1f} s")
    print(f"                  {speedup:.2f} times as fast, efficiency {speedup / 2:.0%}")
    rates = [num_images(half, 1) / weak[0].seconds, num_images(setup, 1) / first]
    print(f"weak scaling      1 worker, half the cohort {rates[0]:.1f} images/s; 2 workers, all of it {rates[1]:.1f}")
    print(f"                  efficiency {rates[1] / rates[0] / 2:.0%}")


def groups_of(setup: TrainingSetup, round_: int) -> list[list[str]]:
    most = setup.config.data.max_num_user_images
    return cohort_groups(
        setup.sampler.sample(round_), lambda client: min(setup.worker.clients.num_images(client), most)
    )


def num_images(setup: TrainingSetup, round_: int) -> int:
    """Images that the clients of a round train on."""
    most = setup.config.data.max_num_user_images
    return sum(min(setup.worker.clients.num_images(client), most) for client in setup.sampler.sample(round_))


def in_turn(setup: TrainingSetup, state: ServerState, backends: list[Backend], repeats: int) -> list[list[Cost]]:
    """Costs of rounds 1 to ``repeats`` from ``state``, for each backend; each round on all of them in turn."""
    costs: list[list[Cost]] = [[] for _ in backends]
    for round_ in range(1, repeats + 1):
        cohort = setup.sampler.sample(round_)
        for found, backend in zip(costs, backends):
            started, before = time.perf_counter(), all_processor_seconds()
            run_round(replace(state, round=round_), cohort, setup=setup, backend=backend)
            found.append(Cost(time.perf_counter() - started, all_processor_seconds() - before))
    return costs


def warm_up(setup: TrainingSetup, state: ServerState, backends: list[Backend]) -> None:
    """A small round on each, after which all its workers have joined and have their memory."""
    cohort = setup.sampler.sample(0)[:16]
    for backend in backends:
        for _ in range(3):
            run_round(state, cohort, setup=setup, backend=backend)


def all_processor_seconds() -> float:
    """Processor time of this process and of those that it started and that are still there."""
    return sum(processor_seconds(pid) for pid in [os.getpid(), *descendants(os.getpid())])


def client_time(setup: TrainingSetup, state: ServerState) -> tuple[float, float]:
    """Seconds of a client and of one of its images, fitted to clients of 1 to 8 images, alone on one core."""
    sizes, times = [], []
    dataset = setup.worker.clients
    chosen = {dataset.num_images(client): client for client in dataset.client_ids if dataset.num_images(client) <= 8}
    alone = make_setup(setup.config.changed(workers=0, num_threads=1), noise_seed=0)
    server = Broadcast(
        0, state.parameters, state.algorithm_state, setup.mechanism.clipping_bound(state.mechanism_state)
    )
    with thread_backend(alone.worker) as backend:
        for repeat in range(6):
            for size, client in sorted(chosen.items()):
                started = time.perf_counter()
                list(backend.map_unordered(train_group, server, [[ClientWork(client)]]))
                if repeat:
                    sizes.append(size)
                    times.append(time.perf_counter() - started)
    per_image, fixed = np.polyfit(sizes, times, 1)
    return max(float(fixed), 0.0), float(per_image)


if __name__ == "__main__":
    main()
