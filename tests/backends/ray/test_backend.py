"""Ray with real processes: equal results, lost and hanging and failing workers, lost nodes, a killed driver."""

from __future__ import annotations

import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ray = pytest.importorskip("ray")

from fedflair.backends.contract import Backend, Worker  # noqa: E402
from fedflair.backends.ray.backend import named, ray_backend, worker_plan  # noqa: E402
from fedflair.backends.ray.cluster import connected, gpu_share  # noqa: E402
from fedflair.backends.ray.worker import RayWorker, Started, placed  # noqa: E402
from fedflair.cli import main  # noqa: E402
from fedflair.config.train_config import TrainConfig  # noqa: E402
from fedflair.errors import ConfigError, DataError, Interrupted, WorkerError  # noqa: E402
from fedflair.federated.aggregate import UpdateSum  # noqa: E402
from fedflair.federated.server import Broadcast  # noqa: E402
from fedflair.federated.setup import make_setup, make_worker_setup  # noqa: E402
from fedflair.privacy.contract import ClipResult  # noqa: E402
from fedflair.runs.folder import RunFolder, read_rows  # noqa: E402
from fedflair.training.checkpoint import load_state  # noqa: E402
from fedflair.training.client_group import ClientWork  # noqa: E402
from fedflair.training.train import train  # noqa: E402
from tests import prepared  # noqa: E402
from tests.conftest import jpeg, write_tiny_store  # noqa: E402
from tests.prepared import Prepared  # noqa: E402
from tests.processes import descendants, executable, forget_ended_processes, listening_addresses, titled  # noqa: E402
from tests.small_runs import command, small_config, timeless_rows  # noqa: E402
from tests.training.test_client_group import BROKEN_CLIENT, BROKEN_IMAGE, write_broken_store  # noqa: E402

# 127.0.0.1 in hexadecimal, as IPv4, and mapped into IPv6.
ON_LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}

PRIVATE: dict[str, Any] = {
    "central_privacy_mechanism": "gaussian_moments_accountant",
    "local_privacy_mechanism": "gaussian",
    "local_epsilon": 50.0,
    "noise_from_seed": True,
    "central_delta": 0.01,
    "central_epsilon": 50.0,
}


def config_of(store: Path, **options: Any) -> TrainConfig:
    return small_config(store, **{"workers": 2, "cohort_size": 6, **options})


@pytest.fixture(scope="module", autouse=True)
def tasks_travel_by_value() -> Iterator[None]:
    """The workers cannot import this module."""
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    yield
    ray.cloudpickle.unregister_pickle_by_value(module)


@pytest.fixture(scope="module")
def cluster(tiny_store: Path) -> Iterator[None]:
    # Places for two backends at once: that of the next fixture, and a test's own.
    with connected(config_of(tiny_store, workers=4).hardware):
        yield
    forget_ended_processes()


@pytest.fixture(scope="module")
def backend(cluster: None, tiny_store: Path) -> Iterator[Backend]:
    """Two workers that the tests below may lose; each is replaced."""
    with ray_backend(make_setup(config_of(tiny_store, worker_timeout=4.0), noise_seed=0)) as backend:
        yield backend


def worker_pids(driver: int, doing: str = "ray::RayWorker") -> list[int]:
    return titled(descendants(driver), doing)


def square(worker: Worker, shared: int, item: int) -> int:
    return shared + item**2


def die_once(worker: Worker, marker: Path, item: int) -> int:
    if item == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def hang_once(worker: Worker, marker: Path, item: int) -> int:
    if item == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return item


def fail_once(worker: Worker, marker: Path, item: int) -> int:
    if item == 3 and not marker.exists():
        marker.touch()
        raise ValueError("out of luck")
    return item


def fail_always(worker: Worker, shared: None, item: int) -> int:
    if item == 3:
        raise ValueError("three\nis too many")
    return item


def die_always(worker: Worker, shared: None, item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_nothing_listens_beyond_loopback(backend: Backend) -> None:
    assert list(backend.map_unordered(square, 0, [1])) == [(0, 1)]
    addresses = listening_addresses([os.getpid(), *descendants(os.getpid())])
    assert len(addresses) >= 5
    assert set(addresses) <= ON_LOOPBACK


def test_results_come_with_their_positions(backend: Backend) -> None:
    assert backend.num_workers == 2
    assert sorted(backend.map_unordered(square, 100, iter(range(7)))) == [(k, 100 + k * k) for k in range(7)]
    assert list(backend.map_unordered(square, 0, [])) == []


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (die_once, "was lost (ActorDiedError: "),
        (hang_once, "did not answer within 4 s; its work is done again elsewhere; log: "),
        (fail_once, "fail_once failed with ValueError: out of luck; tried once more elsewhere; log: "),
    ],
)
def test_what_a_worker_does_not_bring_back_is_done_again(
    backend: Backend, tmp_path: Path, capfd: pytest.CaptureFixture[str], task: Any, said: str
) -> None:
    results = sorted(backend.map_unordered(task, tmp_path / "marker", range(6)))
    assert results == [(k, k) for k in range(6)]
    assert (tmp_path / "marker").exists()
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    assert len(lines) == 1, lines
    assert said in lines[0]


def test_what_fails_twice_or_is_lost_again_and_again_ends_the_run_in_one_line(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedflair.backends.ray.backend.MAX_LOSSES", 2)
    with pytest.raises(WorkerError, match=r"fail_always failed with ValueError: three\nis too many; log: ") as failed:
        list(backend.map_unordered(fail_always, None, range(6)))
    log = Path(str(failed.value).split("log: ")[1])
    assert "ValueError: three" in log.read_text()
    with pytest.raises(WorkerError, match=r"^5: lost 2 times with their worker; the last, worker \d+ \(process"):
        list(backend.map_unordered(die_always, None, [5]))
    assert list(backend.map_unordered(square, 0, [2])) == [(0, 4)]


def test_a_broken_image_is_named_with_the_log_of_its_worker(
    cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, run = write_broken_store(tmp_path / "store.hdf5"), tmp_path / "run"
    assert main(command(config_of(store, run=run, workers=1))[3:]) == 1
    lines = capfd.readouterr().err.splitlines()
    failed = f"{store}: image {BROKEN_IMAGE} of user '{BROKEN_CLIENT}' in partition 'train' cannot be decoded"
    told, closing = lines[-2:]
    assert told.startswith(f"ray: {failed}")
    assert "; tried once more elsewhere; log: " in told
    assert closing.startswith(f"fedflair: {failed}")
    assert "continue with" not in closing
    log = Path(closing.split("; log: ")[1].split(";")[0])
    assert "OSError: Truncated File Read" in log.read_text()
    assert not any("Traceback" in line for line in lines)


def test_a_broken_image_of_a_secret_cohort_is_named_neither_on_the_terminal_nor_in_a_log(
    cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, run = write_broken_store(tmp_path / "store.hdf5"), tmp_path / "run"
    options = {"central_privacy_mechanism": "gaussian", "central_delta": 0.01, "cohort_size": 6}
    assert main(command(config_of(store, run=run, workers=1, **options))[3:]) == 1
    told = capfd.readouterr().err
    assert re.search(r"\nray: the work on a client failed on worker .*; tried once more elsewhere; log: ", told)
    assert f"what to do is in {run}/failures.txt, closed to others" in told
    assert BROKEN_CLIENT not in told
    failures = (run / "failures.txt").read_text()
    assert BROKEN_CLIENT in failures
    log = Path(failures.split("; log: ")[1].split(";")[0].strip())
    assert "client_group.py" in log.read_text()
    assert BROKEN_CLIENT not in log.read_text()


def test_a_replaced_worker_that_finds_another_store_refuses(
    cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, marker = write_tiny_store(tmp_path / "store.hdf5"), tmp_path / "marker"
    with ray_backend(make_setup(config_of(store, workers=1), noise_seed=0)) as backend:
        assert list(backend.map_unordered(square, 0, [2])) == [(0, 4)]
        write_tiny_store(store, encode=lambda number: jpeg(number + 1))
        # The worker has the store that was there; what takes its place does not.
        assert list(backend.map_unordered(square, 0, [3])) == [(0, 9)]
        with pytest.raises(
            DataError, match=r"store.hdf5: not the store that the run began with .*; put that one back$"
        ):
            list(backend.map_unordered(die_once, marker, [3]))
    capfd.readouterr()


def test_a_lost_raylet_ends_the_run_in_one_line(tiny_store: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"central_num_iterations": 500, "evaluation_frequency": 500, "workers": 1}
    run, said = RunFolder(tmp_path / "run"), tmp_path / "stderr"
    with said.open("w") as errors:
        process = subprocess.Popen(command(config_of(tiny_store, run=run.path, **options)), stderr=errors)
    try:
        deadline = time.monotonic() + 100
        while len(read_rows(run)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        (raylet,) = [pid for pid in descendants(process.pid) if executable(pid) == "raylet"]
        os.kill(raylet, signal.SIGKILL)
        assert process.wait(60) == 1
    finally:
        process.kill()
        process.wait()
    # From the listener, where Ray ended the process in the middle of a call.
    deadline = time.monotonic() + 10
    while "fedflair: " not in said.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    *before, closing = said.read_text().splitlines()
    assert closing.startswith("fedflair: ")
    # Said by the run, or by its listener where Ray ended the run in the middle of a call.
    assert "(raylet) was lost" in closing
    assert closing.endswith(f"continue with: fedflair train --resume --run {run.path}")
    # What the run said of itself when it started, and nothing of Ray's.
    # But for a worker that went first, or that a busy machine was slow to start.
    said_before = [line.split(":")[0] for line in before if not line.endswith(("done again elsewhere", " and 0 GPUs"))]
    assert said_before == [
        "flair",
        "squeezenet1_1 from scratch, 724,548 parameters, 32 px, cpu",
        "convolutions",
        "run folder",
    ]


def test_a_stopped_run_leaves_at_once(cluster: None, tiny_store: Path) -> None:
    stop = threading.Event()
    with ray_backend(make_setup(config_of(tiny_store), noise_seed=0), stop) as backend:
        threading.Timer(0.5, stop.set).start()
        with pytest.raises(Interrupted):
            list(backend.map_unordered(square, 0, iter(int, 1)))


@pytest.mark.parametrize(("reduction", "num_kills"), [("exact", 1), ("fast", 1)])
def test_a_private_run_under_kills_equals_one_in_threads(
    cluster: None, tiny_store: Path, tmp_path: Path, reduction: str, num_kills: int
) -> None:
    options = {**PRIVATE, "reduction": reduction, "local_num_epochs": 4, "central_num_iterations": 2}
    calm = train(config_of(tiny_store, workers=0, run=tmp_path / "calm", **options))
    over, generator, kills = threading.Event(), random.Random(0), []

    def kill() -> None:
        while len(kills) < num_kills and not over.wait(generator.uniform(0.0, 0.05)):
            pids = worker_pids(os.getpid(), "ray::RayWorker.run")
            if pids:
                kills.append(generator.choice(pids))
                os.kill(kills[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        shaken = train(config_of(tiny_store, run=tmp_path / "shaken", **options))
    finally:
        over.set()
        killer.join()
    assert len(kills) == num_kills
    one, two = (load_state(RunFolder(folder).last, torch.device("cpu"))[0] for folder in (calm, shaken))
    if reduction == "exact":
        assert torch.equal(one.parameters, two.parameters)
        assert timeless_rows(calm) == timeless_rows(shaken)
    else:
        torch.testing.assert_close(one.parameters, two.parameters, rtol=1e-4, atol=1e-5)
    # Cohorts and their noise, round by round.
    assert (calm / "privacy_ledger.jsonl").read_text() == (shaken / "privacy_ledger.jsonl").read_text()


def test_a_killed_driver_leaves_nothing_behind_and_resumes_without_ray(tiny_store: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": "small_cnn", "workers": 1}
    options |= {"central_num_iterations": 30, "evaluation_frequency": 2}
    whole = train(config_of(tiny_store, run=tmp_path / "whole", **{**options, "workers": 0}))
    halted = config_of(tiny_store, run=tmp_path / "halted", **options)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["HOME"] = str(tmp_path)
    process = Prepared(command(halted)[3:], environment=environment)
    try:
        deadline = time.monotonic() + 100
        while len(read_rows(RunFolder(tmp_path / "halted"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        # Halted, so that it does not end while it is looked at.
        process.send_signal(signal.SIGSTOP)
        workers = worker_pids(process.pid)
        environ = Path(f"/proc/{workers[0]}/environ").read_bytes()
        addresses = listening_addresses([process.pid, *descendants(process.pid)])
    finally:
        process.kill()
        process.wait()
    # On, with a token that lies in no file: Ray's own would be for all users to read.
    assert b"RAY_AUTH_MODE=token" in environ
    assert re.search(rb"RAY_AUTH_TOKEN=[0-9a-f]{64}\0", environ)
    assert not (tmp_path / ".ray" / "auth_token").exists()
    assert len(workers) == 1
    assert len(addresses) >= 5
    assert set(addresses) <= ON_LOOPBACK
    deadline = time.monotonic() + 20
    while titled(workers, "ray::RayWorker") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not titled(workers, "ray::RayWorker")
    assert not RunFolder(tmp_path / "halted").summary.exists()
    arguments = ["--resume", "--run", str(tmp_path / "halted"), "--workers", "0"]
    resumed = prepared.run(["train", *arguments])
    assert resumed.returncode == 0, resumed.stderr
    assert timeless_rows(whole) == timeless_rows(tmp_path / "halted")


def test_workers_know_no_secret_of_the_central_mechanism(tiny_store: Path) -> None:
    secret = 0xFEDF1A12345678900987654321
    central = {k: v for k, v in PRIVATE.items() if not k.startswith("local") and k != "noise_from_seed"}
    plan = worker_plan(make_setup(config_of(tiny_store, **central), secret), gpus=0.0)
    assert plan.local_noise_seed == 0
    assert secret.to_bytes(14, "little").rstrip(b"\0") not in pickle.dumps(plan)
    both = worker_plan(make_setup(config_of(tiny_store, **PRIVATE), secret), gpus=0.0)
    assert both.local_noise_seed not in (0, secret)
    assert secret.to_bytes(14, "little").rstrip(b"\0") not in pickle.dumps(both)


@pytest.mark.parametrize("mechanism", ["none", "norm_clipping_only", "gaussian", "laplace"])
def test_a_worker_clips_as_the_driver_does(tiny_store: Path, mechanism: str) -> None:
    # Order 3 is no other mechanism's, and no default.
    order = 3.0 if mechanism == "norm_clipping_only" else None
    options = {"central_privacy_mechanism": mechanism, "central_order": order, "private_metrics": 0.2}
    setup = make_setup(config_of(tiny_store, **options), noise_seed=1)
    plan = worker_plan(setup, gpus=0.0)
    worker = make_worker_setup(
        plan.config, plan.clip_order, plan.local_noise_seed, plan.fixed, plan.fingerprint, plan.kernels
    )
    assert worker.clipping.mechanism == setup.mechanism.name
    update = torch.linspace(-1, 2, 1001)
    ours, theirs = update.clone(), update.clone()
    assert worker.clipping.clip(ours, 0.25) == setup.mechanism.clip(theirs, 0.25)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, update)
    mine, own = worker.clipping.measure, setup.mechanism.measure
    assert (own is None) is (mine is None) is (order == 3.0 or mechanism == "none")
    for loss, images, clip in [(0.3, 7, ClipResult(1.0, True, False)), (2.0, 90, ClipResult(0.1, False, False))]:
        assert own is None or (mine is not None and mine(0.25, loss, images, clip) == own(0.25, loss, images, clip))


def test_a_worker_clips_groups_as_the_driver_does(tiny_store: Path) -> None:
    options: dict[str, Any] = {"adaptive_clipping": True, "clipping_groups": "kinds", "central_delta": 0.01}
    options |= {"adaptive_clipping_noise_std": 20.0, "model": "small_cnn"}
    config = config_of(tiny_store, central_privacy_mechanism="gaussian_moments_accountant", **options)
    setup = make_setup(config, noise_seed=1)
    plan = worker_plan(setup, gpus=0.0)
    worker = make_worker_setup(
        plan.config, plan.clip_order, plan.local_noise_seed, plan.fixed, plan.fingerprint, plan.kernels
    )
    mine, own = worker.clipping.clip_groups, setup.mechanism.grouped
    assert mine is not None and own is not None
    update = torch.linspace(-1, 2, sum(own.groups.sizes))
    ours, theirs = update.clone(), update.clone()
    found = mine(ours, (0.25, 1e9, 3.0))
    assert found == own.clip(theirs, (0.25, 1e9, 3.0))
    assert found.groups == (True, False, True)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("asked", "num_gpus", "workers", "share"),
    [(0.0, 0, 4, 0.0), (0.0, 2, 2, 1.0), (0.25, 2, 2, 1.0), (0.25, 2, 8, 0.25), (0.0, 2, 3, 0.5), (1.0, 8, 4, 1.0)],
)
def test_workers_are_spread_over_all_gpus(asked: float, num_gpus: int, workers: int, share: float) -> None:
    assert gpu_share(asked, num_gpus, workers) == share


def test_too_many_workers_for_the_gpus_are_refused(cluster: None, tiny_store: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"gpus_per_worker: 2 workers of 0.5 are more than the 0 GPUs"),
        connected(config_of(tiny_store, gpus_per_worker=0.5).hardware),
    ):
        raise AssertionError("not reached")


def test_tensors_are_found_and_copied_wherever_they_are() -> None:
    tensor = torch.arange(3.0)
    nested = Broadcast(1, tensor, {"momentum": tensor}, 0.5)
    copy = placed([nested, ("a", 1)], torch.device("cpu"), copy=True)
    assert copy[1] == ("a", 1)
    assert torch.equal(copy[0].parameters, tensor)
    assert copy[0].algorithm_state["momentum"].data_ptr() != tensor.data_ptr()
    assert placed(nested, torch.device("cpu")).parameters is tensor


def test_a_worker_at_rest_keeps_nothing_of_the_round(cluster: None, tiny_store: Path) -> None:
    worker = RayWorker()
    assert isinstance(worker.start(worker_plan(make_setup(config_of(tiny_store), 0), gpus=0.0)), Started)
    server, result = Broadcast(0, torch.arange(3.0), {}, 1.0), UpdateSum(torch.ones(3))
    held = [weakref.ref(tensor) for tensor in (server.parameters, result.delta)]
    assert worker.run(1, lambda worker, shared, item: item, server, result, keep=True) is None
    del server, result
    # Both are kept for the next group of the round.
    assert all(reference() is not None for reference in held)
    worker.rest()
    assert [reference() for reference in held] == [None, None]
    assert worker.take() is None


def test_items_have_names() -> None:
    assert named(range(32, 64)) == "images 32 to 63"
    assert named([ClientWork("a"), ClientWork("b")]) == "clients a, b"
