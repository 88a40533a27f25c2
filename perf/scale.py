"""What Ray costs: rounds with 2 workers against rounds with 2 threads, scaling over workers, and the time of a client.

    python perf/scale.py                                       # ResNet-18 at 224 pixels, about 10 minutes on 2 cores
    python perf/scale.py --model_type squeezenet1_1 --image_size 64 --repeats 2

The users are a FLAIR-like store's. Threads and workers take the same rounds from the same state, in turn, and the
medians are compared. What Ray adds is a little for each group, whose number hardly depends on the cohort's size from a
hundred clients on; so its share is also given for a round of 200 clients, from the cost of a group and the time of a
client as measured here.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedflair.aggregate import cohort_groups
from fedflair.backends import Backend, choose_backend, thread_backend
from fedflair.config import TrainConfig
from fedflair.data.synthetic import synthesize
from fedflair.data.synthetic_users import sizes_by_partition
from fedflair.server import ServerState
from fedflair.setup import Setup, initial_state, make_setup
from fedflair.train import run_round

COHORT = 200
NUM_USERS = 51_414
LIMIT = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_type", default="resnet18")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--cohort_size", type=int, default=12)
    parser.add_argument("--max_num_user_images", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.hdf5"
        with contextlib.redirect_stdout(sys.stderr):
            synthesize(output=store, num_users=200)
        config = TrainConfig(
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
        state = initial_state(setup)
        fixed, per_image = client_time(setup, state)
        print(f"{arguments.model_type} at {arguments.image_size} px, {state.parameters.numel():,} parameters")
        print(f"a client               {fixed:.3f} s + {per_image:.3f} s an image (2 epochs, one core)")
        small = make_setup(replace(config, cohort_size=arguments.cohort_size // 2), noise_seed=0)
        one_worker = make_setup(replace(config, workers=1), noise_seed=0)
        with thread_backend(setup) as threads, choose_backend(setup) as workers:
            in_threads, in_workers = in_turn(setup, state, threads, workers, arguments.repeats)
        with choose_backend(one_worker) as worker:
            strong = statistics.median(seconds(setup, state, worker, k) for k in rounds(arguments.repeats))
            weak = statistics.median(seconds(small, state, worker, k) for k in rounds(arguments.repeats))
    groups = len(groups_of(setup, 1))
    added = max(0.0, (in_workers - in_threads) / groups)
    print(f"a round of {arguments.cohort_size:<4}        threads {in_threads:.2f} s, workers {in_workers:.2f} s")
    print(f"measured overhead      {in_workers / in_threads - 1:+.1%}, {added * 1e3:.0f} ms a group ({groups} groups)")
    sizes = np.minimum(sizes_by_partition(NUM_USERS, 0)["train"], 512)
    cohort = {str(k): int(n) for k, n in enumerate(np.random.default_rng(0).choice(sizes, COHORT, replace=False))}
    published = len(cohort_groups(list(cohort), cohort.__getitem__))
    training = (COHORT * fixed + COHORT * float(sizes.mean()) * per_image) / 2
    share = published * added / training
    print(f"a round of {COHORT} clients  {training:.0f} s of training on 2 workers, {published} groups")
    print(f"overhead there         {share:.2%} (limit {LIMIT:.0%}): {'ok' if share < LIMIT else 'TOO MUCH'}")
    size = state.parameters.numel() * 4 / 1e6
    print(f"bytes a round          {size:.0f} MB to each node, {published} x {size:.0f} MB back; fast: once a worker")
    print(
        f"strong scaling         1 worker {strong:.2f} s, 2 workers {in_workers:.2f} s: {strong / in_workers / 2:.0%}"
    )
    print(f"weak scaling           1 worker, half the cohort {weak:.2f} s; 2 workers {in_workers:.2f} s")


def rounds(repeats: int) -> range:
    """Rounds to measure; the first is for warming up."""
    return range(1, repeats + 1)


def groups_of(setup: Setup, round_: int) -> list[list[str]]:
    most = setup.config.max_num_user_images
    return cohort_groups(setup.sampler.sample(round_), lambda client: min(setup.dataset.num_images(client), most))


def seconds(setup: Setup, state: ServerState, backend: Backend, round_: int) -> float:
    """Time of one round from ``state``, as if it were round ``round_``."""
    started = time.perf_counter()
    run_round(replace(state, round=round_), setup.sampler.sample(round_), setup=setup, backend=backend)
    return time.perf_counter() - started


def in_turn(setup: Setup, state: ServerState, threads: Backend, workers: Backend, repeats: int) -> tuple[float, float]:
    """Median times of the same rounds on both backends."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for backend in (threads, workers):
        seconds(setup, state, backend, 0)
    for round_ in rounds(repeats):
        for index, backend in enumerate((threads, workers)):
            times[index].append(seconds(setup, state, backend, round_))
    return statistics.median(times[0]), statistics.median(times[1])


def client_time(setup: Setup, state: ServerState) -> tuple[float, float]:
    """Seconds of a client and of one of its images, fitted to clients of 1 to 8 images, alone on one core."""
    sizes, times = [], []
    dataset = setup.dataset
    chosen = {dataset.num_images(client): client for client in dataset.client_ids if dataset.num_images(client) <= 8}
    alone = make_setup(replace(setup.config, workers=0, num_threads=1), noise_seed=0)
    with thread_backend(alone) as backend:
        run_round(state, [next(iter(chosen.values()))], setup=alone, backend=backend)
        for size, client in sorted(chosen.items()):
            started = time.perf_counter()
            run_round(state, [client], setup=alone, backend=backend)
            sizes.append(size)
            times.append(time.perf_counter() - started)
    per_image, fixed = np.polyfit(sizes, times, 1)
    return max(float(fixed), 0.0), float(per_image)


if __name__ == "__main__":
    main()
