"""A cluster of two nodes in network namespaces of their own, and the link between them cut in the middle of a round."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ray")

from fedflair.backends.ray.cluster import LOOPBACK
from fedflair.runs.folder import RunFolder
from fedflair.training.checkpoint import load_state
from fedflair.training.train import train
from tests.processes import descendants, executable, titled
from tests.small_runs import command, small_config, timeless_rows

HEAD, NODE = "10.213.7.1", "10.213.7.2"
ADDRESS = f"{HEAD}:6379"
# Each has a place for one worker.
OPTIONS = ["--num-cpus=1", "--object-store-memory=80000000", "--disable-usage-stats", "--block"]


@dataclass(frozen=True)
class Link:
    """Two namespaces and what joins them: ``inside(address)`` starts a command in that address's namespace."""

    inside: dict[str, list[str]]
    cut: Callable[[], None]


@pytest.fixture
def link() -> Iterator[Link]:
    names = {HEAD: f"ff{os.getpid()}a", NODE: f"ff{os.getpid()}b"}
    ends = list(names.values())
    try:
        if shutil.which("ip") is None:
            pytest.skip("needs the command ip (iproute2)")
        for name in ends:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", ends[0], "netns", ends[0], "type", "veth", "peer", "name", ends[1], "netns", ends[1])
        for address, name in names.items():
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
    except subprocess.CalledProcessError as error:
        remove(ends)
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
    yield Link(
        {address: ["ip", "netns", "exec", name] for address, name in names.items()},
        lambda: ip("-n", ends[1], "link", "set", ends[1], "down"),
    )
    remove(ends)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def remove(names: list[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@contextmanager
def ray_node(start: list[str], environment: dict[str, str], log: Path) -> Iterator[int]:
    """A node of a cluster, as ``ray start`` has it; ended with all its processes. Yields the process's id."""
    command = [*start, *OPTIONS]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield process.pid
    finally:
        # Asked politely, a node that is cut off takes half a minute.
        for pid in [*descendants(process.pid), process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def wait_for(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 100
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.01)


def test_a_run_goes_on_without_the_node_that_is_cut_off(link: Link, tiny_store: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cohort_size": 6, "local_num_epochs": 4, "central_num_iterations": 10}
    options |= {"evaluation_frequency": 10}
    calm = train(small_config(tiny_store, run=tmp_path / "calm", **options))
    options |= {"workers": 2, "ray_address": ADDRESS, "worker_timeout": 8.0}
    run = RunFolder(tmp_path / "shaken")
    environment = {name: value for name, value in os.environ.items() if name not in LOOPBACK}
    start = [str(Path(sys.executable).with_name("ray")), "start"]
    # A short path, for the sockets in it.
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
        head_only = ["--head", f"--node-ip-address={HEAD}", "--include-dashboard=false", f"--temp-dir={folder}"]
        stack.enter_context(ray_node([*link.inside[HEAD], *start, *head_only], environment, tmp_path / "head"))
        probe = [*link.inside[HEAD], sys.executable, "-c", f"import socket; socket.create_connection(('{HEAD}', 6379))"]
        wait_for(lambda: subprocess.run(probe, capture_output=True, check=False).returncode == 0, "the head")
        joined = [f"--address={ADDRESS}", f"--node-ip-address={NODE}"]
        node = stack.enter_context(ray_node([*link.inside[NODE], *start, *joined], environment, tmp_path / "node"))
        # Both have a place for a worker when the run begins, which is then short.
        wait_for(lambda: any(executable(pid) == "raylet" for pid in descendants(node)), "the node")
        with (tmp_path / "said").open("w") as errors:
            arguments = [*link.inside[HEAD], *command(small_config(tiny_store, run=run.path, **options))]
            driver = subprocess.Popen(arguments, stderr=errors, env=environment)
        try:
            wait_for(lambda: bool(titled(descendants(node), "ray::RayWorker.run")), "a worker on the node")
            (worker,) = titled(descendants(node), "ray::RayWorker")
            link.cut()
            assert not run.summary.exists()
            assert driver.wait(100) == 0, (tmp_path / "said").read_text()
        finally:
            driver.kill()
            driver.wait()
    # On a busy machine the run may also say that it waits for its first worker.
    lines = (tmp_path / "said").read_text().splitlines()
    told = [line for line in lines if line.startswith("ray: ") and "no worker has a place yet" not in line]
    assert len(told) == 1, told
    assert f"(process {worker} on {NODE}) did not answer within 8 s; its work is done again elsewhere" in told[0]
    one, two = (load_state(RunFolder(path).last, torch.device("cpu"))[0] for path in (calm, run.path))
    assert torch.equal(one.parameters, two.parameters)
    assert timeless_rows(calm) == timeless_rows(run.path)
