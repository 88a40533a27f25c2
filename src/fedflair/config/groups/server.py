"""The optimizer that takes the mean update: a group of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedflair.config.checks import at_least_zero, fraction, positive


@dataclass(frozen=True)
class ServerOptions:
    """Server: the optimizer that takes the mean update.

    Args:
        central_optimizer: Server optimizer, fed with minus the mean update as gradient: adam, adagrad, yogi, avgm, or
            sgd; adam_bc, which takes a central mechanism's noise out of the second moment; or a plugin's.
        learning_rate: Server learning rate after warm-up.
        central_lr_num_warmup_iterations: Rounds over which the server learning rate rises linearly from 0.
        central_lr_end: Server learning rate of the last round, where the schedule is not constant.
        central_lr_schedule: How the server learning rate gets from learning_rate to central_lr_end.
        central_lr_power: Power of the polynomial schedule; 1 is linear.
        adaptivity_degree: Epsilon in the denominator of the adaptive server optimizer; adam_bc's least denominator.
        adam_beta1: Decay of the first moment; the momentum of avgm.
        adam_beta2: Decay of the second moment.
        central_weight_decay: Decoupled weight decay of the server optimizer.
    """

    central_optimizer: str = "adam"
    learning_rate: float = 0.1
    central_lr_num_warmup_iterations: int = 30
    central_lr_end: float = 0.02
    central_lr_schedule: Literal["constant", "polynomial", "cosine"] = "polynomial"
    central_lr_power: float = 1.0
    adaptivity_degree: float = 0.01
    adam_beta1: float = 0.9
    adam_beta2: float = 0.99
    central_weight_decay: float = 0.0

    def __post_init__(self) -> None:
        at_least_zero(self, "central_lr_num_warmup_iterations", "central_lr_end", "central_weight_decay")
        positive(self, "learning_rate", "central_lr_power", "adaptivity_degree")
        fraction(self, "adam_beta1", "adam_beta2")
