"""Networks by name: what builds one, and where its pretrained weights come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fedflair.models import multi_label_cnn, small_cnn


@dataclass(frozen=True)
class Model:
    """build: (model_type, num_labels, pretrained, weights, seed) -> a module with logits float [n, num_labels].

    own_code: model_type -> what says that a network of one's own is still the same; None for all others.
    weights: (model_type, file or None) -> tensors by name to start from, None where it is made with them. Raises
        ConfigError, before anything is fetched, where there are none.
    """

    build: Callable[..., nn.Module]
    own_code: Callable[[str], str | None]
    weights: Callable[[str, Path | None], Mapping[str, torch.Tensor] | None]


MODELS: dict[str, Model] = {
    "multi_label_cnn": Model(multi_label_cnn.build, multi_label_cnn.own_code, multi_label_cnn.start_weights),
    "small_cnn": Model(small_cnn.build, lambda model_type: None, small_cnn.own_weights),
}
