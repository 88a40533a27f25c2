"""``hf:NAME``: image classifiers and vision towers (DINOv2, CLIP, SigLIP, ...) of transformers, with a linear head.

NAME is a repository of the hub, or a folder with a ``config.json``.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from fedflair.data.images.preprocessing import Channels, Preprocessing
from fedflair.errors import ConfigError
from fedflair.models.preprocessing import with_preprocessing

_BICUBIC = 3
_REMEDY = "check the name, set HF_ENDPOINT to a mirror, or name a folder that holds it"


class Classifier(nn.Module):
    """Images float [n, 3, H, W] to logits [n, num_labels], of a network that answers with a record."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(pixel_values=images).logits
        return logits


def make(name: str, num_labels: int) -> nn.Module:
    """The network with ``num_labels`` outputs and random weights; raises ConfigError where it cannot be had."""
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(name, num_labels=num_labels)
        module = Classifier(transformers.AutoModelForImageClassification.from_config(config))
    except Exception as error:
        raise _unavailable(name, error) from error
    return with_preprocessing(module, _preprocessing(transformers, name, config))


def published(name: str) -> dict[str, torch.Tensor]:
    """The weights of the repository or folder, the head's included where it has one."""
    transformers = _transformers()
    try:
        network = transformers.AutoModelForImageClassification.from_pretrained(name)
    except Exception as error:
        raise _unavailable(name, error) from error
    state: dict[str, torch.Tensor] = Classifier(network).state_dict()
    return state


def _preprocessing(transformers: Any, name: str, config: Any) -> Preprocessing:
    """As the repository has it; where it says nothing, the size of its configuration and ImageNet's mean."""
    size = getattr(getattr(config, "vision_config", config), "image_size", 224)
    size = int(size[0] if isinstance(size, list | tuple) else size)
    try:
        found = transformers.AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError):
        return Preprocessing(size=size)
    asked = getattr(found, "crop_size", None) or getattr(found, "size", None) or {}
    side = asked.get("height") or asked.get("shortest_edge") or size
    bicubic = int(getattr(found, "resample", _BICUBIC) or 0) == _BICUBIC
    mean, deviation = (tuple(map(float, getattr(found, key))) for key in ("image_mean", "image_std"))
    return Preprocessing(
        cast("Channels", mean), cast("Channels", deviation), int(side), "bicubic" if bicubic else "bilinear"
    )


def _unavailable(name: str, error: Exception) -> ConfigError:
    words = " ".join(str(error).split())[:160]
    return ConfigError(f"model_type: hf:{name} cannot be had ({type(error).__name__}: {words}); {_REMEDY}")


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError("model_type: hf: is not installed; pip install 'fedflair[transformers]'") from error
    return transformers
