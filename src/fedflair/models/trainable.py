"""What of a network is trained: everything, its last layers, its normalisations or biases, or what is added to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from fedflair.errors import ConfigError
from fedflair.models.adapters import add_film, add_lora, is_normalisation
from fedflair.models.dropout import stop_dropout
from fedflair.sampling import torch_stream

Trainable = Literal["all", "head", "last_block", "norm", "bias", "film", "lora"]
# torchvision's vision transformers, by name: it is not imported for networks that are not its own.
_ENCODER = ("torchvision.models.vision_transformer", "Encoder")


@dataclass(frozen=True)
class Choice:
    """The options of the same names; see ``config/groups/model.py``. seed: the run's, for what is added at random."""

    trainable: Trainable = "all"
    num_trainable_blocks: int = 1
    lora_rank: int = 8
    lora_alpha: float = 8.0
    lora_layers: str = "all"
    seed: int = 0


def choose_trained(module: nn.Module, choice: Choice) -> None:
    """Leaves ``requires_grad`` on the chosen parameters only, in place; autograd then stops at the first of them.

    The head is the last layer that has weights, and trains always: it is new. A block is what the network strings
    together (a residual block, a transformer layer, an inception module, a convolution of VGG); normalisation after the
    first trained block trains with it. Dropout is off where the head alone trains. ``film`` and ``lora`` add
    parameters, see ``adapters.py``. Raises ConfigError where there are fewer than ``num_trainable_blocks`` blocks
    before the head, or nothing of the kind to train.
    """
    if choice.trainable == "all":
        return
    units = list(units_of(module))
    head = head_of(module)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    if choice.trainable == "head":
        # It regularises what is trained, and the rest is not.
        stop_dropout(module)
    for parameter in _chosen(module, choice, units, head):
        parameter.requires_grad_(True)
    head.requires_grad_(True)


def head_of(module: nn.Module) -> nn.Module:
    """The last layer that has weights."""
    return _last_layer(list(units_of(module))[-1])


def _chosen(module: nn.Module, choice: Choice, units: list[nn.Module], head: nn.Module) -> Iterable[nn.Parameter]:
    """What is trained beside the head."""
    if choice.trainable == "last_block":
        return _last_blocks(units, head, choice.num_trainable_blocks)
    if choice.trainable == "film":
        return add_film(module)
    if choice.trainable == "lora":
        generator = torch_stream(choice.seed, "lora")
        return add_lora(
            module,
            rank=choice.lora_rank,
            alpha=choice.lora_alpha,
            layers=choice.lora_layers,
            head=head,
            generator=generator,
        )
    if choice.trainable == "norm":
        return _some(_normalisations(module), "norm", "normalisations with weights")
    if choice.trainable == "bias":
        return _some(_biases(module, head), "bias", "biases before its head")
    return []


def _last_blocks(units: list[nn.Module], head: nn.Module, num_blocks: int) -> list[nn.Parameter]:
    starts = [k for k, unit in enumerate(units) if unit is not head and _has_weights(unit)]
    if num_blocks > len(starts):
        raise ConfigError(f"num_trainable_blocks: {num_blocks} is more than the {len(starts)} blocks of this model")
    return [parameter for unit in units[starts[-num_blocks] :] for parameter in unit.parameters()]


def _normalisations(module: nn.Module) -> list[nn.Parameter]:
    return [p for layer in module.modules() if is_normalisation(layer) for p in layer.parameters(recurse=False)]


def _biases(module: nn.Module, head: nn.Module) -> list[nn.Parameter]:
    own = {id(parameter) for parameter in head.parameters()}
    return [p for name, p in module.named_parameters() if name.endswith("bias") and id(p) not in own]


def _some(found: list[nn.Parameter], trainable: str, what: str) -> list[nn.Parameter]:
    if not found:
        raise ConfigError(f"trainable: {trainable} needs {what}, and this network has none; use head, film or lora")
    return found


def units_of(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks and loose layers that have parameters, in the order of their registration, which is that of use."""
    for child in module.children():
        if _strings_together(child):
            yield from units_of(child)
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
