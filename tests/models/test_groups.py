"""Which parameters are clipped together."""

from __future__ import annotations

import pytest
import torch

from fedflair.engine.flat_model import parameter_vector
from fedflair.errors import ConfigError
from fedflair.models import MODELS
from fedflair.models.groups import numbered, trained_runs
from fedflair.models.trainable import Choice, choose_trained


def small() -> torch.nn.Module:
    return MODELS["small_cnn"].build("", 3, pretrained=False, weights=None, seed=0)


def test_blocks_are_what_the_network_strings_together() -> None:
    names, runs = numbered(trained_runs(small(), "blocks"))
    assert names == (*(f"features.{k}" for k in (0, 1, 4, 5, 8, 9, 12, 13)), "head")
    assert [number for number, _ in runs] == list(range(9))
    assert [size for _, size in runs][:2] == [3 * 32 * 9, 2 * 32]
    assert runs[-1][1] == 512 * 3 + 3


def test_kinds_are_head_weights_and_vectors_in_the_vectors_order() -> None:
    network = small()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0 if parameter.ndim < 2 else 2.0)
        for parameter in network.head.parameters():  # type: ignore[union-attr]
            parameter.fill_(3.0)
    names, runs = numbered(trained_runs(network, "kinds"))
    assert set(names) == {"weights", "vectors", "head"}
    value = {"vectors": 1.0, "weights": 2.0, "head": 3.0}
    expected = torch.cat([torch.full((size,), value[names[number]]) for number, size in runs])
    assert torch.equal(parameter_vector(network, torch.device("cpu")), expected)


def test_only_what_is_trained_is_grouped_and_one_group_is_none() -> None:
    network = small()
    choose_trained(network, Choice("norm"))
    assert dict(trained_runs(network, "kinds")).keys() == {"vectors", "head"}
    network = small()
    choose_trained(network, Choice("head"))
    with pytest.raises(ConfigError, match="clipping_groups: blocks puts all that is trained into one group, head"):
        trained_runs(network, "blocks")


@pytest.mark.parametrize("trainable", ["all", "film", "lora"])
@pytest.mark.parametrize("by", ["blocks", "kinds"])
def test_every_trained_parameter_of_a_residual_network_has_a_group(trainable: str, by: str) -> None:
    network = MODELS["multi_label_cnn"].build("resnet18", 3, pretrained=False, weights=None, seed=0)
    choose_trained(network, Choice(trainable))  # type: ignore[arg-type]
    _, runs = numbered(trained_runs(network, by))
    assert sum(size for _, size in runs) == sum(p.numel() for p in network.parameters() if p.requires_grad)
