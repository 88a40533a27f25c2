"""A cluster at an address: nodes that join while a run is at work, and nodes that are lost."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ray = pytest.importorskip("ray")

from ray.cluster_utils import Cluster  # noqa: E402

from fedflair.backends.contract import Worker  # noqa: E402
from fedflair.backends.ray.backend import ray_backend  # noqa: E402
from fedflair.errors import ConfigError  # noqa: E402
from fedflair.federated.setup import make_setup  # noqa: E402
from fedflair.runs.folder import RunFolder  # noqa: E402
from fedflair.training.checkpoint import load_state  # noqa: E402
from fedflair.training.train import train  # noqa: E402
from tests.processes import forget_ended_processes  # noqa: E402
from tests.small_runs import small_config, timeless_rows  # noqa: E402

# The head has the driver and no place for workers: a worker runs on the second node or not at all.
NODE: dict[str, Any] = {"object_store_memory": 80_000_000, "include_dashboard": False, "node_ip_address": "127.0.0.1"}


@pytest.fixture
def head() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
    yield cluster
    cluster.shutdown()
    forget_ended_processes()


def test_a_node_may_join_late_and_another_may_be_lost(head: Cluster, tiny_store: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cohort_size": 6, "local_num_epochs": 10}
    calm = train(small_config(tiny_store, run=tmp_path / "calm", **options))
    shaken = RunFolder(tmp_path / "shaken")
    failures: list[BaseException] = []

    def run() -> None:
        try:
            train(small_config(tiny_store, run=shaken.path, workers=1, ray_address=head.address, **options))
        except BaseException as error:  # noqa: BLE001 - shown by the test, in another thread
            failures.append(error)

    # The run starts without any node for its worker. Only the main thread can add nodes.
    trainer = threading.Thread(target=run)
    trainer.start()
    try:
        first = head.add_node(**NODE, num_cpus=1)
        wait_for_rounds(shaken, 1)
        head.remove_node(first, allow_graceful=False)
        head.add_node(**NODE, num_cpus=1)
    finally:
        trainer.join(120)
    assert not failures
    assert not trainer.is_alive()
    one, two = (load_state(RunFolder(folder).last, torch.device("cpu"))[0] for folder in (calm, shaken.path))
    assert torch.equal(one.parameters, two.parameters)
    assert timeless_rows(calm) == timeless_rows(shaken.path)


@pytest.fixture
def two_gpus() -> Iterator[Cluster]:
    """A node that says it has two GPUs; Ray deals them out by number, whether or not there are any."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 2, "num_gpus": 2})
    yield cluster
    cluster.shutdown()
    forget_ended_processes()


def visible_gpus(worker: Worker, shared: float, item: int) -> str:
    time.sleep(shared)
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_each_of_two_workers_sees_a_gpu_of_its_own(two_gpus: Cluster, tiny_store: Path) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    # A quarter of a GPU each: Ray alone would put both on the first.
    config = small_config(tiny_store, device="auto", workers=2, gpus_per_worker=0.25, ray_address=two_gpus.address)
    try:
        with ray_backend(make_setup(config, noise_seed=0)) as backend:
            seen: set[str] = set()
            deadline = time.monotonic() + 60
            while len(seen) < 2 and time.monotonic() < deadline:
                seen |= {gpus for _, gpus in backend.map_unordered(visible_gpus, 0.2, range(4))}
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert seen == {"0", "1"}


def wait_for_rounds(run: RunFolder, num_rounds: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if run.metrics.exists() and len(run.metrics.read_text().splitlines()) >= num_rounds:
            return
        time.sleep(0.02)
    raise TimeoutError(f"{run.path}: no {num_rounds} rounds")


def test_an_address_without_a_cluster_is_said_in_one_line(tiny_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^ray_address: 127\.0\.0\.1:1: .*refused; start a cluster there with: ray"):
        train(small_config(tiny_store, run=tmp_path / "run", ray_address="127.0.0.1:1"))
    with pytest.raises(ConfigError, match=r"^ray_address: ray://127.0.0.1:10001 is for Ray's client"):
        train(small_config(tiny_store, run=tmp_path / "run", ray_address="ray://127.0.0.1:10001"))
    assert not (tmp_path / "run").exists()
