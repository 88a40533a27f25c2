"""Any torchvision classification backbone with a multi-label head: logits float [n, num_labels].

torchvision is imported where it is needed only: for other backbones than the residual networks of ``resnet.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import nn

from fedflair.errors import ConfigError
from fedflair.models.dropout import replace_dropout, replace_stochastic_depth
from fedflair.models.normalization import frozen_batch_norm, group_norm, replace_modules
from fedflair.models.resnet import RESNETS, ResNet
from fedflair.models.weights import fit
from fedflair.sampling import torch_stream


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
    if model_type not in RESNETS and model_type not in backbones():
        raise ConfigError(
            f"model_type: no torchvision classification model {model_type!r}; e.g. resnet18, mobilenet_v2"
        )
    module = _initialised(model_type, num_labels, seed)
    if weights is not None:
        fit(module, weights, model_type)
    replace_modules(module, nn.BatchNorm2d, frozen_batch_norm if pretrained else group_norm)
    replace_dropout(module)
    return module


def _initialised(model_type: str, num_labels: int, seed: int) -> nn.Module:
    # Layers draw their initial values from the global generator: lend it a named stream and put its state back.
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_stream(seed, "init").get_state())
        if model_type in RESNETS:
            return ResNet(RESNETS[model_type], num_labels)
        return _torchvisions(model_type, num_labels)


def _torchvisions(model_type: str, num_labels: int) -> nn.Module:
    from torchvision import models

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
