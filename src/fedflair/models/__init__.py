"""Models by name: ``MODELS[model](...)`` builds a module with logits float [n, num_labels]."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from fedflair.models import multi_label_cnn, small_cnn

MODELS: dict[str, Callable[..., nn.Module]] = {
    "multi_label_cnn": multi_label_cnn.build,
    "small_cnn": small_cnn.build,
}
