"""The network, what it starts from, and what of it is trained: a group of options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedflair.config.checks import at_least_one, positive
from fedflair.errors import ConfigError


@dataclass(frozen=True)
class ModelOptions:
    """Model: the network, what it starts from, and what of it is trained.

    Args:
        model: Any classification backbone (multi_label_cnn), or a small network for quick checks on small images
            (small_cnn); or a plugin's.
        model_type: A torchvision backbone, timm:NAME, hf:NAME (transformers), or MODULE:FUNCTION for your own.
        pretrained: Start from ImageNet weights, BatchNorm statistics frozen; else from scratch with GroupNorm.
        pretrained_weights: A .safetensors or .pth file to start from instead of downloading what is published.
        start_from: A run folder or an exported model, of the same network and labels, whose weights to start from.
        start_from_checkpoint: That run's model that was best on val, or the one of its last round saved.
        trainable: All parameters, or the last layer and: nothing else (head), the last blocks, scales and shifts of
            normalisations (norm), biases, a scale and shift added after each normalisation (film), or low-rank matrices
            added to weights (lora).
        num_trainable_blocks: How many blocks last_block trains.
        lora_rank: Rank of the matrices that lora adds.
        lora_alpha: What is added is their product times lora_alpha / lora_rank; the rank if not given.
        lora_layers: Layers that lora adds to: all, linear, convolution, or a regular expression found in their names.
    """

    model: str = "multi_label_cnn"
    model_type: str = "resnet18"
    pretrained: bool = True
    pretrained_weights: Path | None = None
    start_from: Path | None = None
    start_from_checkpoint: Literal["best", "last"] = "best"
    trainable: Literal["all", "head", "last_block", "norm", "bias", "film", "lora"] = "all"
    num_trainable_blocks: int = 1
    lora_rank: int = 8
    lora_alpha: float | None = None
    lora_layers: str = "all"

    def __post_init__(self) -> None:
        at_least_one(self, "num_trainable_blocks", "lora_rank")
        if self.lora_alpha is not None:
            positive(self, "lora_alpha")
        if self.pretrained_weights is not None and not self.pretrained:
            raise ConfigError("pretrained_weights: given together with pretrained: false; drop one of the two")
        if self.pretrained_weights is not None and self.start_from is not None:
            raise ConfigError("pretrained_weights: given together with start_from, whose weights are all; drop one")
        if self.start_from_checkpoint != "best" and self.start_from is None:
            raise ConfigError(
                f"start_from_checkpoint: {self.start_from_checkpoint} says where to start; give --start_from with it"
            )
