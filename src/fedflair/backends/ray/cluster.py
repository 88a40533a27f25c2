"""Where Ray runs: a cluster of this machine's own, which lives and dies with this process, or one at an address."""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fedflair.config.groups.hardware import HardwareOptions
from fedflair.errors import ConfigError
from fedflair.system import terminal
from fedflair.system.cores import num_cores

# Without it Ray replaces 127.0.0.1 by the address of a network interface and listens on all of them. It is the switch
# that keeps Ray to loopback on macOS and Windows, read when Ray is imported; a local cluster does the same here.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Reservation:
    """What each of ``num_workers`` workers reserves of the cluster: cores, and GPUs or a fraction of one."""

    num_workers: int
    cpus: float
    gpus: float


def keep_private() -> None:
    """Keeps a cluster of this machine's own to loopback and to this process; to be called before Ray is imported.

    Left to itself, Ray writes the token that lets anybody run code in the cluster to a file that all users may read.
    """
    for name, value in LOOPBACK.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        # Only this user and the processes that we start can read it there.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


@contextmanager
def connected(hardware: HardwareOptions) -> Iterator[Reservation]:
    """Connects this process to Ray and says what a worker reserves there.

    A cluster that this process is connected to already is used, and left as it is. Raises ConfigError where there is
    none at ``ray_address``, or too few GPUs for the workers.
    """
    import ray

    if ray.is_initialized():
        yield _reservation(hardware, ray.cluster_resources())
        return
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if hardware.ray_address is None:
        # As many cores as were asked for: Ray only counts them, and a worker too many would wait for ever.
        cores = max(math.ceil(hardware.workers * hardware.cpus_per_worker), num_cores())
        options |= {"address": "local", "num_cpus": cores, "include_dashboard": False}
    else:
        require_listener(hardware.ray_address)
        options |= {"address": hardware.ray_address}
    try:
        with _signals_kept():
            ray.init(**options)
        _silence_raylets()
        if hardware.ray_address is None and not ray.util.get_node_ip_address().startswith("127."):
            (name, value), *_ = LOOPBACK.items()
            say(f"listening beyond loopback, since Ray was imported before fedflair could tell it: set {name}={value}")
    except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ConfigError(
            f"ray_address: {hardware.ray_address or 'this machine'}: no Ray to be had: {error}"
        ) from error
    try:
        yield _reservation(hardware, ray.cluster_resources())
    finally:
        ray.shutdown()


def _reservation(hardware: HardwareOptions, resources: dict[str, float]) -> Reservation:
    num_gpus = resources.get("GPU", 0.0) if hardware.device != "cpu" else 0.0
    workers = hardware.workers or max(1, int(resources.get("CPU", 0.0) // hardware.cpus_per_worker))
    if not hardware.workers and num_gpus:
        workers = min(workers, int(num_gpus // (hardware.gpus_per_worker or 1.0)))
    gpus = gpu_share(hardware.gpus_per_worker, num_gpus, workers)
    if hardware.ray_address is None and workers * hardware.gpus_per_worker > num_gpus:
        raise ConfigError(
            f"gpus_per_worker: {workers} workers of {hardware.gpus_per_worker:g} are more than the {num_gpus:g} GPUs "
            "of this machine; lower it, or workers"
        )
    return Reservation(workers, hardware.cpus_per_worker, gpus)


def gpu_share(asked: float, num_gpus: float, num_workers: int) -> float:
    """GPUs that a worker reserves: what was asked for, and no less than spreads the workers over all GPUs.

    Ray fills one GPU before it goes to the next: two workers of 0.25 would share the first of two GPUs.
    """
    if not num_gpus:
        return asked
    return max(asked, 1 / math.ceil(num_workers / num_gpus))


def require_listener(address: str) -> None:
    """Refuses (ConfigError) an address at which nobody listens, at which Ray itself would knock for minutes."""
    if address.startswith("ray://"):
        raise ConfigError(f"ray_address: {address} is for Ray's client; give the head's own address, as HOST:6379")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"ray_address: {address}: {error}; start a cluster there with: ray start --head --port {port}"
        ) from error


@contextmanager
def raylet_watch() -> Iterator[Callable[[], bool]]:
    """A function that says whether the raylet, Ray's process of this node, is alive: its connection to it is open."""
    from ray._private import worker

    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(worker.global_worker.node.raylet_socket_name)
        connection.setblocking(False)

        def alive() -> bool:
            with suppress(BlockingIOError):
                return connection.recv(1) != b""
            return True

        yield alive


def _silence_raylets() -> None:
    """Keeps Ray from printing a paragraph for each lost worker, of which ``say`` tells in a line."""
    from ray._private import worker

    show = worker.print_to_stdstream

    def show_others(data: dict[str, Any], ignore_prefix: bool) -> None:
        if data.get("pid") != "raylet":
            show(data, ignore_prefix)

    worker.print_to_stdstream = show_others


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keeps the handlers of SIGINT and SIGTERM, the second of which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text: str) -> None:
    """One line for the user, beside the progress bar."""
    terminal.say(f"ray: {terminal.one_line(text)}", stderr=True)
