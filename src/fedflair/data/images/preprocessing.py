"""How a network wants its inputs: the size, the resize, and the mean and deviation of each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Channels = tuple[float, float, float]
Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """mean, deviation: of the channels red, green and blue, of values from 0 to 1. size: side in pixels of the input.

    interpolation: of the resize, which averages what it shrinks.
    """

    mean: Channels = (0.485, 0.456, 0.406)
    deviation: Channels = (0.229, 0.224, 0.225)
    size: int = 224
    interpolation: Interpolation = "bilinear"

    def normalisation(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean, 1 / deviation) of values from 0 to 255: float32 [3] each."""
        mean, deviation = torch.tensor(self.mean) * 255, torch.tensor(self.deviation) * 255
        return mean.to(device), (1 / deviation).to(device)


# Of torchvision's networks, and of fedflair's own.
IMAGENET = Preprocessing()
