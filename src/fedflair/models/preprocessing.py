"""Where a network keeps how it wants its inputs: on the module, so that it goes wherever that goes."""

from __future__ import annotations

from torch import nn

from fedflair.data.images.preprocessing import IMAGENET, Preprocessing

_ATTRIBUTE = "fedflair_preprocessing"


def with_preprocessing(module: nn.Module, preprocessing: Preprocessing) -> nn.Module:
    """The module itself, which remembers how it wants its inputs."""
    object.__setattr__(module, _ATTRIBUTE, preprocessing)
    return module


def preprocessing_of(module: nn.Module) -> Preprocessing:
    """How a network wants its inputs; ImageNet's where it does not say."""
    found = getattr(module, _ATTRIBUTE, IMAGENET)
    return found if isinstance(found, Preprocessing) else IMAGENET
