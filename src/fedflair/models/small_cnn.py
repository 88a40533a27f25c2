"""Four convolutions with GroupNorm for small images: trains from scratch in minutes on a CPU, to check an idea."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from fedflair.errors import ConfigError
from fedflair.models.weights import fit, read_weights
from fedflair.sampling import torch_stream

WIDTHS = (32, 64, 128, 256)
GROUPS = 8


class SmallCNN(nn.Module):
    """Logits float [n, num_labels] from images float [n, 3, H, W], H and W at least 16.

    Each stage halves the side; the head sees the mean and the maximum of each of the last channels, since a label may
    be anywhere in the picture or all over it.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(2 * channels, num_labels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)
        logits: torch.Tensor = self.head(torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1))
        return logits


def build(
    model_type: str, num_labels: int, *, pretrained: bool, weights: Mapping[str, torch.Tensor] | None, seed: int
) -> nn.Module:
    """The network with initial weights that depend on ``seed`` alone, or with ``weights``; ``model_type`` says nothing.

    Raises DataError where the weights do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_stream(seed, "init").get_state())
        network = SmallCNN(num_labels)
    if weights is not None:
        fit(network, weights, "small_cnn")
    return network


def own_weights(model_type: str, path: Path | None) -> Mapping[str, torch.Tensor]:
    """Of a file. Raises ConfigError where there is none: nobody publishes weights of this network."""
    if path is None:
        raise ConfigError(
            "pretrained: small_cnn has no published weights; use --pretrained false, or name a file of its own with "
            "--pretrained_weights"
        )
    return read_weights(path)
