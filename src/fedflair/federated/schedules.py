"""How learning rates change over the rounds."""

from __future__ import annotations

import math
from collections.abc import Callable

from fedflair.config.train_config import TrainConfig

# Share of the way from the end value to the start value, at a share of the rounds done in [0, 1] and with a power.
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "constant": lambda done, power: 1.0,
    "polynomial": lambda done, power: (1.0 - done) ** power,
    "cosine": lambda done, power: (1.0 + math.cos(math.pi * done)) / 2.0,
}


def server_learning_rate(config: TrainConfig, round_: int) -> float:
    """Linear warm-up from 0 in round 0, then the schedule, which reaches ``central_lr_end`` in the last round exactly.

    With ``like: pfl`` it would be reached in a round after the last. A constant schedule stays at ``learning_rate``.
    """
    warmup = config.server.central_lr_num_warmup_iterations
    last = config.algorithm.central_num_iterations - (0 if config.algorithm.like == "pfl" else 1)
    if round_ < warmup:
        return config.server.learning_rate * round_ / warmup
    done = (round_ - warmup) / (last - warmup) if last > warmup else 0.0
    share = SCHEDULES[config.server.central_lr_schedule](done, config.server.central_lr_power)
    return config.server.central_lr_end + (config.server.learning_rate - config.server.central_lr_end) * share


def local_learning_rate(config: TrainConfig, round_: int) -> float:
    """``local_learning_rate`` in round 0, ``local_lr_end`` in the last one; polynomial is linear here."""
    last = config.algorithm.central_num_iterations - 1
    done = round_ / last if last > 0 else 0.0
    share = SCHEDULES[config.local.local_lr_schedule](done, 1.0)
    return config.local.local_lr_end + (config.local.local_learning_rate - config.local.local_lr_end) * share
