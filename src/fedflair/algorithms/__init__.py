"""Federated algorithms by name: what a client does, and what the server does with the mean of it."""

from __future__ import annotations

from collections.abc import Callable

from fedflair.algorithms import fedavg
from fedflair.algorithms.base import Algorithm
from fedflair.config import TrainConfig

ALGORITHMS: dict[str, Callable[[TrainConfig], Algorithm]] = {
    "fedavg": fedavg.make,
}

__all__ = ["ALGORITHMS", "Algorithm"]
