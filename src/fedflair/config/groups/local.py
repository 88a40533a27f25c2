"""SGD on a client: a group of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedflair.config.checks import at_least_one, at_least_one_if_given, at_least_zero, fraction, positive


@dataclass(frozen=True)
class LocalTrainingOptions:
    """Local training: SGD on a client.

    Args:
        local_learning_rate: Learning rate of SGD on a client.
        local_num_epochs: Passes over a client's images in a round.
        local_num_steps: Steps on a client in a round, instead of epochs.
        local_momentum: Momentum of SGD on a client.
        local_weight_decay: Weight decay of SGD on a client.
        local_lr_schedule: How the local learning rate changes over the rounds.
        local_lr_end: Local learning rate of the last round, where the schedule is not constant.
        local_batch_size: Images in a local step; null is all of a client's.
        local_max_grad_norm: L2 bound on the gradient of a local step.
        local_augmentation: A fresh crop and flip of each image in each step (crop), or whole images (none).
        frozen_features: Where the head alone trains on whole images, what comes before it is computed once, and kept
            beside the store in this type; off computes it in every step.
    """

    local_learning_rate: float = 0.01
    local_num_epochs: int = 2
    local_num_steps: int | None = None
    local_momentum: float = 0.0
    local_weight_decay: float = 0.0
    local_lr_schedule: Literal["constant", "polynomial", "cosine"] = "constant"
    local_lr_end: float = 0.0
    local_batch_size: int | None = 16
    local_max_grad_norm: float = 10.0
    local_augmentation: Literal["crop", "none"] = "crop"
    frozen_features: Literal["float32", "float16", "off"] = "float32"

    def __post_init__(self) -> None:
        at_least_one(self, "local_num_epochs")
        at_least_one_if_given(self, "local_num_steps", "local_batch_size")
        at_least_zero(self, "local_weight_decay", "local_lr_end")
        positive(self, "local_learning_rate", "local_max_grad_norm")
        fraction(self, "local_momentum")
