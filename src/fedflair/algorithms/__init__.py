"""Federated algorithms by name: what a client does, and what the server does with the mean of it."""

from __future__ import annotations

from fedflair.algorithms import fedavg
from fedflair.algorithms.base import Algorithm, MakeAlgorithm

ALGORITHMS: dict[str, MakeAlgorithm] = {
    "fedavg": fedavg.make,
}

__all__ = ["ALGORITHMS", "Algorithm"]
