"""Privacy mechanisms: what is done to each client's update and to the sum of a cohort, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

MechanismState = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class ClipResult:
    """What clipping saw of one update.

    norm: the update's norm before clipping (inf or nan where it was not finite).
    clipped: the update was longer than the bound.
    rejected: the update was not finite and counts as zero.
    """

    norm: float
    clipped: bool
    rejected: bool


@dataclass(frozen=True)
class CohortStats:
    """What the mechanism may know of the cohort whose sum it makes private.

    num_clients: realised cohort size. num_clipped, num_rejected: how many updates were clipped or rejected.
    """

    num_clients: int
    num_clipped: int
    num_rejected: int


@dataclass(frozen=True)
class Mechanism:
    """How one round's sum of client updates is made private; pure functions, state passed in and out.

    name: the published option name.
    init: the state before round 0, for updates of length P. Tensors only, so that a checkpoint can hold it.
    clipping_bound: the bound in force, from the state (adaptive clipping moves it); inf where nothing is clipped.
    clip: clips one update (float32 [P]) in place to a given bound.
    add_noise: (sum float32 [P], cohort, round, state) -> (noisy sum, next state). May work in place.
    event: the dp_accounting event of all rounds up to and including a number of rounds; None where no epsilon holds.
    noise_std: standard deviation of the noise on the sum, given the state; 0 where none is added.
    description: what a summary says of the mechanism: epsilon, delta, noise_multiplier, sampler, ... ; empty for none.
    """

    name: str
    init: Callable[[int], MechanismState]
    clipping_bound: Callable[[MechanismState], float]
    clip: Callable[[torch.Tensor, float], ClipResult]
    add_noise: Callable[[torch.Tensor, CohortStats, int, MechanismState], tuple[torch.Tensor, MechanismState]]
    event: Callable[[int], Any]
    noise_std: Callable[[MechanismState], float]
    description: Mapping[str, Any]
