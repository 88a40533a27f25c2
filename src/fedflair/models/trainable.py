"""Which parameters of a network are trained: all, the last layer, or the last blocks and the last layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import nn

from fedflair.errors import ConfigError

Trainable = Literal["all", "head", "last_block"]
# torchvision's vision transformers, by name: it is not imported for networks that are not its own.
_ENCODER = ("torchvision.models.vision_transformer", "Encoder")


def freeze(module: nn.Module, trainable: Trainable, num_blocks: int) -> None:
    """Leaves ``requires_grad`` on the chosen parameters only, in place; autograd then stops at the first of them.

    The head is the last layer that has weights. A block is what the network strings together (a residual block, a
    transformer layer, an inception module, a convolution of VGG); normalisation after the first trained block trains
    with it. Raises ConfigError where there are fewer than ``num_blocks`` blocks before the head.
    """
    if trainable == "all":
        return
    units = list(_units(module))
    head = _last_layer(units[-1])
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    head.requires_grad_(True)
    if trainable == "head":
        return
    starts = [k for k, unit in enumerate(units) if unit is not head and _has_weights(unit)]
    if num_blocks > len(starts):
        raise ConfigError(f"num_trainable_blocks: {num_blocks} is more than the {len(starts)} blocks of this model")
    for unit in units[starts[-num_blocks] :]:
        unit.requires_grad_(True)


def _units(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks and loose layers that have parameters, in the order of their registration, which is that of use."""
    for child in module.children():
        if _strings_together(child):
            yield from _units(child)
        elif any(True for _ in child.parameters()):
            yield child


def _strings_together(module: nn.Module) -> bool:
    """Whether it is blocks one after the other and no more; torchvision's DenseNet blocks are ModuleDicts of layers."""
    kind = type(module)
    known = kind is nn.Sequential or isinstance(module, nn.ModuleList | nn.ModuleDict)
    return known or (kind.__module__, kind.__name__) == _ENCODER


def _last_layer(unit: nn.Module) -> nn.Module:
    return [layer for layer in unit.modules() if any(p.ndim > 1 for p in layer.parameters(recurse=False))][-1]


def _has_weights(unit: nn.Module) -> bool:
    """Whether it is more than a normalisation, whose parameters are vectors."""
    return any(parameter.ndim > 1 for parameter in unit.parameters())
