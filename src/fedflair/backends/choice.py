"""Which backend a run works with: threads of its own process, or Ray where its options ask for it."""

from __future__ import annotations

import importlib.util
import threading
from contextlib import AbstractContextManager

from fedflair.backends.contract import Backend
from fedflair.backends.ray.cluster import keep_private, require_listener
from fedflair.backends.threads import thread_backend
from fedflair.config.train_config import TrainConfig
from fedflair.errors import ConfigError
from fedflair.federated.setup import TrainingSetup


def uses_ray(config: TrainConfig) -> bool:
    """Whether ``workers`` or ``ray_address`` ask for processes, rather than threads of this one."""
    return bool(config.hardware.workers) or config.hardware.ray_address is not None


def require_backend(config: TrainConfig) -> None:
    """Refuses (ConfigError) workers where Ray is not installed, and a cluster's address at which nobody listens."""
    if not uses_ray(config):
        return
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("workers: Ray is not installed; install it with: pip install 'fedflair[ray]'")
    if config.hardware.ray_address is not None:
        require_listener(config.hardware.ray_address)


def choose_backend(setup: TrainingSetup, stop: threading.Event | None = None) -> AbstractContextManager[Backend]:
    """The backend that the run's configuration asks for."""
    if not uses_ray(setup.config):
        return thread_backend(setup.worker, stop)
    if setup.config.hardware.ray_address is None:
        keep_private()
    # Ray is an extra, and takes a second to import; it reads what keeps it private as it does.
    from fedflair.backends.ray.backend import ray_backend

    return ray_backend(setup, stop)
