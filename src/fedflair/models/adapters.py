"""Small parameters added to a network whose own stay as they are, and a network that has them built in.

FiLM: a scale and a shift of each channel after each normalisation (Perez et al. 2018, arXiv:1709.07871; for private
learning Tobaben et al. 2023, arXiv:2302.01190). LoRA: a product of two thin matrices added to a weight (Hu et al. 2021,
arXiv:2106.09685). Both begin as nothing: an adapted network is at first the network that it was made of.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TypeGuard, cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from fedflair.errors import ConfigError
from fedflair.models.normalization import FrozenBatchNorm2d

LAYERS = ("all", "linear", "convolution")


class FiLM(nn.Module):
    """``x * (1 + scale) + shift``, by channel: float [n, C, ...] where ``axis`` is 1, [..., C] where it is -1."""

    def __init__(self, num_channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.scale = nn.Parameter(torch.zeros(num_channels))
        self.shift = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (-1,) + (1,) * (x.ndim - 2) if self.axis == 1 else (-1,)
        return torch.addcmul(x + self.shift.view(shape).to(x.dtype), x, self.scale.view(shape).to(x.dtype))


class Modulated(nn.Sequential):
    """A normalisation and the FiLM after it."""


class LowRank(nn.Module):
    """What a weight [O, ...] becomes: itself and ``scaling * up @ down`` in its shape, up [O, rank], down [rank, ...].

    ``down`` begins as a linear layer's weight does, drawn from ``generator``, and ``up`` as zero.
    """

    def __init__(self, weight: torch.Tensor, rank: int, scaling: float, generator: torch.Generator) -> None:
        super().__init__()
        width = weight[0].numel()
        bound = 1 / math.sqrt(width)
        self.scaling = scaling
        self.up = nn.Parameter(torch.zeros(len(weight), rank))
        self.down = nn.Parameter((2 * torch.rand(rank, width, generator=generator) - 1) * bound)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + (self.scaling * (self.up @ self.down)).view_as(weight)


def add_film(module: nn.Module) -> list[nn.Parameter]:
    """Puts a FiLM after each normalisation, in place; returns their parameters. Raises ConfigError without any."""
    found: list[nn.Parameter] = []
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if is_normalisation(child) and not isinstance(parent, Modulated):
                film = FiLM(_num_channels(child), _channel_axis(child))
                setattr(parent, name, Modulated(child, film))
                found += [film.scale, film.shift]
    if not found:
        raise ConfigError("trainable: film needs normalisations, and this network has none; use lora")
    return found


def add_lora(
    module: nn.Module, *, rank: int, alpha: float, layers: str, head: nn.Module, generator: torch.Generator
) -> list[nn.Parameter]:
    """Adds low-rank matrices to the weights of ``layers``, in place; returns them.

    layers: ``all``, ``linear`` or ``convolution``, or a regular expression that a layer's name has somewhere in it. The
    head trains whole instead. Raises ConfigError where none is left, or the expression is none.
    """
    pattern = _compiled(layers)
    found: list[nn.Parameter] = []
    for name, layer in list(module.named_modules()):
        if layer is head or not _is_chosen(name, layer, layers, pattern):
            continue
        for weight_name in _weights_of(layer):
            low_rank = LowRank(getattr(layer, weight_name), rank, alpha / rank, generator)
            parametrize.register_parametrization(layer, weight_name, low_rank)
            found += [low_rank.up, low_rank.down]
    if not found:
        raise ConfigError(
            f"lora_layers: no layer of this network is meant by {layers!r}; use one of {', '.join(LAYERS)}"
        )
    return found


def merge(module: nn.Module) -> nn.Module:
    """Builds what was added into the network's own weights, in place, and returns it: the same function, unadapted.

    Raises ConfigError where a normalisation has no weights that a FiLM could be built into.
    """
    for layer in list(module.modules()):
        if isinstance(layer, parametrize.ParametrizationList) or not parametrize.is_parametrized(layer):
            continue
        for weight_name in list(cast("nn.ModuleDict", layer.parametrizations)):
            parametrize.remove_parametrizations(layer, weight_name, leave_parametrized=True)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Modulated):
                setattr(parent, name, _modulated(*child))
    return module


def is_normalisation(layer: nn.Module) -> bool:
    """Whether the layer normalises and, by its weights if it has some, scales each channel."""
    known = isinstance(layer, nn.GroupNorm | nn.LayerNorm | FrozenBatchNorm2d | nn.RMSNorm)
    # Networks bring their own ones, whose names say what they are.
    weight = getattr(layer, "weight", None)
    named = re.search(r"Norm(2d)?$", type(layer).__name__) is not None
    return known or (named and isinstance(weight, torch.Tensor) and weight.ndim == 1)


@torch.no_grad()
def _modulated(norm: nn.Module, film: nn.Module) -> nn.Module:
    assert isinstance(film, FiLM)
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    if not isinstance(weight, torch.Tensor) or not isinstance(bias, torch.Tensor):
        raise ConfigError(
            f"trainable: film cannot be built into {type(norm).__name__}, which has no scale and shift of its own; "
            "keep it as a layer"
        )
    weight.mul_(1 + film.scale)
    bias.mul_(1 + film.scale).add_(film.shift)
    return norm


def _num_channels(norm: nn.Module) -> int:
    if isinstance(norm, nn.GroupNorm):
        return norm.num_channels
    weight = getattr(norm, "weight", None)
    if isinstance(weight, torch.Tensor):
        return weight.numel()
    shape = getattr(norm, "normalized_shape", ())
    return math.prod(shape)


def _channel_axis(norm: nn.Module) -> int:
    """Layer normalisations have channels last, but for those of convolutional networks, whose names say so."""
    last = isinstance(norm, nn.LayerNorm | nn.RMSNorm) and not type(norm).__name__.endswith("2d")
    return -1 if last else 1


def _compiled(layers: str) -> re.Pattern[str] | None:
    if layers in LAYERS:
        return None
    try:
        return re.compile(layers)
    except re.error as error:
        raise ConfigError(
            f"lora_layers: {layers!r} is neither one of {', '.join(LAYERS)} nor a regular expression ({error})"
        ) from error


def _is_chosen(name: str, layer: nn.Module, layers: str, pattern: re.Pattern[str] | None) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layers in ("all", "convolution") or (pattern is not None and pattern.search(name) is not None)
    if isinstance(layer, nn.Linear | nn.MultiheadAttention):
        return layers in ("all", "linear") or (pattern is not None and pattern.search(name) is not None)
    return False


def _weights_of(layer: nn.Module) -> Iterator[str]:
    """Names of the matrices of a layer that are its own: an attention's projections in, a layer's weight."""
    names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "weight")
    return (name for name in names if is_matrix(getattr(layer, name, None)))


def is_matrix(weight: object) -> TypeGuard[torch.Tensor]:
    """Whether it is a parameter with rows, which vectors of biases and scales have not."""
    return isinstance(weight, nn.Parameter) and weight.ndim > 1
