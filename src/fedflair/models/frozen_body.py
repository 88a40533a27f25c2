"""A network cut before its head: the frozen body, whose outputs never change, and the linear layer that is trained."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from fedflair.models.preprocessing import preprocessing_of, with_preprocessing
from fedflair.models.trainable import head_of


@dataclass(frozen=True)
class Cut:
    """body: images -> what the head takes, float [n, D]. head: -> logits; its parameters are the network's own.

    dimension: D.
    """

    body: nn.Module
    head: nn.Linear
    dimension: int


def cut_before_head(module: nn.Module, size: int) -> Cut | None:
    """The network cut before its head; None where that is no linear layer, or is not all that comes at the end.

    size: side in pixels of its images. To be called when nothing but the head is trained.
    """
    head = head_of(module)
    place = next(name for name, layer in module.named_modules() if layer is head)
    if not isinstance(head, nn.Linear) or not place:
        return None
    body = copy.deepcopy(module)
    parent, _, name = place.rpartition(".")
    setattr(body.get_submodule(parent), name, nn.Identity())
    for parameter in body.parameters():
        parameter.requires_grad_(False)
    with_preprocessing(body, preprocessing_of(module))
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        try:
            features = body.eval()(images)
            same = features.shape == (2, head.in_features) and torch.equal(head(features), module.eval()(images))
        # A network may look at its head in any way, and fail without it.
        except Exception:  # noqa: BLE001
            return None
    return Cut(body, head, head.in_features) if same else None
