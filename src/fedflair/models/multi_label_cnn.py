"""Any classification backbone with a multi-label head: logits float [n, num_labels].

By name one of torchvision's, which is imported for other networks than those of ``resnet.py`` only; after ``timm:`` or
``hf:`` one of those libraries; ``MODULE:FUNCTION`` is one's own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fedflair.errors import ConfigError
from fedflair.models import hugging_face, own_network, timm_networks
from fedflair.models.dropout import replace_drop_path, replace_dropout, replace_stochastic_depth
from fedflair.models.normalization import frozen_batch_norm, group_norm, replace_modules
from fedflair.models.resnet import RESNETS, ResNet
from fedflair.models.weights import fit, imagenet_weights, read_weights
from fedflair.sampling import torch_stream


def own_code(model_type: str) -> str | None:
    """What says whose code a network of one's own is: SHA-256 of its file, hexadecimal; None for all others."""
    family, _, name = model_type.partition(":")
    return own_network.digest(model_type) if name and family not in FAMILIES else None


@dataclass(frozen=True)
class Family:
    """A library's networks. make: (name, number of labels) -> module. published: name -> weights by tensor's name."""

    make: Callable[[str, int], nn.Module]
    published: Callable[[str], Mapping[str, torch.Tensor]]


FAMILIES: dict[str, Family] = {
    "timm": Family(timm_networks.make, timm_networks.published),
    "hf": Family(hugging_face.make, hugging_face.published),
}


def backbones() -> list[str]:
    """Names that ``model_type`` can take: torchvision's classification models."""
    from torchvision import models

    return sorted(models.list_models(module=models))


def build(
    model_type: str, num_labels: int, *, pretrained: bool, weights: Mapping[str, torch.Tensor] | None, seed: int
) -> nn.Module:
    """A backbone whose last layer has ``num_labels`` outputs.

    Pretrained models keep BatchNorm with frozen statistics; models from scratch have GroupNorm in its place. Without
    ``weights`` a pretrained model has its shape only, to be filled from a checkpoint. The initial weights depend on
    ``seed`` alone. Raises ConfigError where the backbone is unknown, DataError where the weights do not fit.
    """
    module = _initialised(model_type, num_labels, seed)
    if weights is not None:
        fit(module, weights, model_type)
    replace_modules(module, nn.BatchNorm2d, frozen_batch_norm if pretrained else group_norm)
    replace_dropout(module)
    replace_drop_path(module)
    return module


def start_weights(model_type: str, path: Path | None) -> Mapping[str, torch.Tensor] | None:
    """What a pretrained network starts from: a file's weights, or those published for it; None is its own function's.

    Raises ConfigError where they cannot be had, saying which file to put where.
    """
    family, _, name = model_type.partition(":")
    if path is not None:
        return read_weights(path)
    if family in FAMILIES and name:
        return FAMILIES[family].published(name)
    if name:
        return None
    _require_torchvisions(model_type)
    return imagenet_weights(model_type)


def _initialised(model_type: str, num_labels: int, seed: int) -> nn.Module:
    # Layers draw their initial values from the global generator: lend it a named stream and put its state back.
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_stream(seed, "init").get_state())
        family, _, name = model_type.partition(":")
        if family in FAMILIES and name:
            return FAMILIES[family].make(name, num_labels)
        if name:
            return own_network.make(model_type, num_labels)
        if model_type in RESNETS:
            return ResNet(RESNETS[model_type], num_labels)
        return _torchvisions(model_type, num_labels)


def _torchvisions(model_type: str, num_labels: int) -> nn.Module:
    from torchvision import models

    _require_torchvisions(model_type)
    builder = models.get_model_builder(model_type)
    options: dict[str, bool] = {}
    # The auxiliary heads of GoogLeNet and Inception serve ImageNet training only.
    if model_type in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    if "weights_backbone" in inspect.signature(builder).parameters:
        raise ConfigError(f"model_type: {model_type!r} is not a classification model")
    module: nn.Module = builder(weights=None, num_classes=num_labels, **options)
    replace_stochastic_depth(module)
    return module


def _require_torchvisions(model_type: str) -> None:
    if model_type not in backbones():
        raise ConfigError(
            f"model_type: no torchvision classification model {model_type!r}; e.g. resnet18, mobilenet_v2, timm:NAME, "
            "hf:NAME, or MODULE:FUNCTION for your own"
        )
