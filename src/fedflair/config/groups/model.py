"""The network, what it starts from, and what of it is trained: a group of options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedflair.config.checks import at_least_one
from fedflair.errors import ConfigError


@dataclass(frozen=True)
class ModelOptions:
    """Model: the network, what it starts from, and what of it is trained.

    Args:
        model: A torchvision backbone, or a small network for quick checks on small images.
        model_type: Any torchvision classification backbone.
        pretrained: Start from ImageNet weights, BatchNorm statistics frozen; else from scratch with GroupNorm.
        pretrained_weights: A .safetensors or .pth file to start from instead of downloading torchvision's.
        trainable: Train every parameter, the last layer only, or the last blocks and the last layer.
        num_trainable_blocks: How many blocks last_block trains.
    """

    model: Literal["multi_label_cnn", "small_cnn"] = "multi_label_cnn"
    model_type: str = "resnet18"
    pretrained: bool = True
    pretrained_weights: Path | None = None
    trainable: Literal["all", "head", "last_block"] = "all"
    num_trainable_blocks: int = 1

    def __post_init__(self) -> None:
        at_least_one(self, "num_trainable_blocks")
        if self.pretrained_weights is not None and not self.pretrained:
            raise ConfigError("pretrained_weights: given together with pretrained: false; drop one of the two")
