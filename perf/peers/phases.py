"""Where a round's time goes: the seconds that fedflair's workers spend in each kind of work."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from fedflair.data.clients.federated import FederatedDataset
from fedflair.engine.flat_model import FlatModel
from fedflair.federated import aggregate, client
from fedflair.training import client_group as work

_TIMED: dict[str, list[tuple[Any, str]]] = {
    "data": [(FederatedDataset, "load"), (client, "decode"), (client, "train_inputs")],
    "forward and backward": [(FlatModel, "logits"), (torch.autograd, "backward")],
    "parameter vector": [
        (FlatModel, "load"),
        (FlatModel, "descend"),
        (FlatModel, "clear_gradients"),
        (client, "clip_factor"),
    ],
    "privacy": [(work, "bound_update")],
    "aggregation": [(aggregate.UpdateSum, "add_client"), (aggregate.TreeSum, "add")],
}


class Phases:
    """Times the functions above wherever they are called from; ``take`` gives the seconds since the last call of it."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()
        self._lock = threading.Lock()
        for phase, functions in _TIMED.items():
            for owner, name in functions:
                setattr(owner, name, self._timed(phase, getattr(owner, name)))

    def take(self) -> dict[str, float]:
        with self._lock:
            seconds, self._seconds = dict(self._seconds), Counter()
        return seconds

    def _timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                with self._lock:
                    self._seconds[phase] += time.perf_counter() - started

        return timed
