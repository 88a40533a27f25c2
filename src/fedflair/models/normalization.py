"""Normalisation that leaks nothing between users: frozen BatchNorm statistics, or GroupNorm instead of BatchNorm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fedflair.errors import ConfigError

MAX_GROUPS = 32


class FrozenBatchNorm2d(nn.Module):
    """BatchNorm whose mean and variance never change while gamma (``weight``) and beta (``bias``) train.

    Input and output: float [n, C, H, W]. No statistic of a batch is computed, so none can leave a client.
    State names equal ``nn.BatchNorm2d``'s, so that published weights load.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, num_features: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift.view(1, -1, 1, 1), images, scale.view(1, -1, 1, 1))


def group_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """GroupNorm for the channels of ``norm``: 32 groups, or the most below 32 that divide the channels."""
    channels = norm.num_features
    groups = next(g for g in range(min(MAX_GROUPS, channels), 0, -1) if channels % g == 0)
    return _then_as(norm, nn.GroupNorm(groups, channels, eps=norm.eps))


def frozen_batch_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """Frozen BatchNorm with the parameters and statistics of ``norm``."""
    frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
    known = frozen.state_dict().keys()
    frozen.load_state_dict({k: v for k, v in norm.state_dict().items() if k in known})
    return _then_as(norm, frozen)


def _then_as(norm: nn.BatchNorm2d, replacement: nn.Module) -> nn.Module:
    """With what timm's normalisations do afterwards: an activation, and dropout before it."""
    after = [layer for name in ("drop", "act") if isinstance(layer := getattr(norm, name, None), nn.Module)]
    return nn.Sequential(replacement, *after) if after else replacement


def refuse_batch_statistics(module: nn.Module) -> None:
    """Raises ConfigError where a layer would still compute, or keep, statistics over a batch of a client's images.

    Any BatchNorm, and anything that keeps a running mean of what it sees (InstanceNorm with ``track_running_stats``).
    """
    for name, layer in module.named_modules():
        keeps = isinstance(getattr(layer, "running_mean", None), torch.Tensor)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) or (keeps and not isinstance(layer, FrozenBatchNorm2d)):
            raise ConfigError(
                f"model: layer {name or 'of the whole'} ({type(layer).__name__}) takes statistics of a client's images "
                "into the model; use frozen BatchNorm or GroupNorm in its place"
            )


def replace_modules(module: nn.Module, kind: type[nn.Module], make: Callable[..., nn.Module]) -> None:
    """Replaces each submodule of type ``kind`` by ``make(submodule)``, in place."""
    for name, child in module.named_children():
        if isinstance(child, kind):
            setattr(module, name, make(child))
        else:
            replace_modules(child, kind, make)
