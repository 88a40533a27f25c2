"""Federated algorithms by name: what a client does, and what the server does with the mean of it."""

from __future__ import annotations

from fedflair.federated.algorithms import adafedprox, central, fedavg, fedprox, reptile, scaffold
from fedflair.federated.algorithms.base import Algorithm, MakeAlgorithm

ALGORITHMS: dict[str, MakeAlgorithm] = {
    "fedavg": fedavg.make,
    "fedprox": fedprox.make,
    "adafedprox": adafedprox.make,
    "scaffold": scaffold.make,
    "reptile": reptile.make,
    "central": central.make,
}

__all__ = ["ALGORITHMS", "Algorithm"]
