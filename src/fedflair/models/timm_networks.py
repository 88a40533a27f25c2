"""``timm:NAME``: networks of PyTorch Image Models, with the weights and preprocessing that it publishes for them."""

from __future__ import annotations

from difflib import get_close_matches
from types import ModuleType
from typing import cast

import torch
from torch import nn

from fedflair.data.images.preprocessing import Channels, Interpolation, Preprocessing
from fedflair.errors import ConfigError
from fedflair.models.preprocessing import with_preprocessing

_INTERPOLATIONS: dict[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic"}


def make(name: str, num_labels: int) -> nn.Module:
    """The network with ``num_labels`` outputs and random weights. Raises ConfigError for a name that timm has not."""
    timm = _timm()
    if not timm.is_model(name.split(".")[0]):
        close = get_close_matches(name, timm.list_models(), n=3)
        raise ConfigError(f"model_type: timm has no network {name!r}; did you mean {', '.join(close) or 'another'}?")
    try:
        module: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_labels)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(f"model_type: timm:{name} cannot be made ({' '.join(str(error).split())})") from error
    return with_preprocessing(module, _preprocessing(timm, module))


def published(name: str) -> dict[str, torch.Tensor]:
    """The weights that timm names for the network, from its cache or the hub.

    Raises ConfigError where there are none, or they cannot be had, saying which file they are.
    """
    timm = _timm()
    found = timm.get_pretrained_cfg(name)
    if found is None or not (found.has_weights):
        raise ConfigError(f"pretrained: timm publishes no weights of {name}; use --pretrained false")
    where = found.hf_hub_id or found.url or found.file
    try:
        state: dict[str, torch.Tensor] = timm.create_model(name, pretrained=True).state_dict()
    # Whatever the hub's client, its cache and the network can raise.
    except Exception as error:
        raise ConfigError(
            f"pretrained: the weights of timm:{name} cannot be had ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]}); get {where} and name its file with --pretrained_weights, set "
            "HF_ENDPOINT to a mirror, or use --pretrained false"
        ) from error
    return state


def _preprocessing(timm: ModuleType, module: nn.Module) -> Preprocessing:
    found = timm.data.resolve_model_data_config(module)
    mean, deviation = (tuple(map(float, found[key])) for key in ("mean", "std"))
    interpolation = _INTERPOLATIONS.get(found["interpolation"], "bicubic")
    return Preprocessing(
        cast("Channels", mean), cast("Channels", deviation), int(found["input_size"][-1]), interpolation
    )


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ConfigError("model_type: timm: is not installed; pip install 'fedflair[timm]'") from error
    return timm
