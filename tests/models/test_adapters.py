"""What is added to a network: by hand on tiny ones, in whole networks, and built into their own weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer

from fedflair.engine.flat_model import Precision, flatten
from fedflair.errors import ConfigError
from fedflair.models.adapters import LowRank, add_film, add_lora, merge
from fedflair.models.multi_label_cnn import build
from fedflair.models.normalization import FrozenBatchNorm2d
from fedflair.models.trainable import Choice, Trainable, choose_trained
from fedflair.runs.folder import RunFolder
from fedflair.training.checkpoint import load_state
from fedflair.training.train import train
from tests.small_runs import small_config


def trained(module: nn.Module) -> dict[str, int]:
    return {name: p.numel() for name, p in module.named_parameters() if p.requires_grad}


def tiny() -> nn.Sequential:
    """A 1 x 1 convolution of one channel to two, a normalisation with statistics known beforehand, and a head."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), FrozenBatchNorm2d(2, eps=0.0), nn.Flatten(), nn.Linear(2, 1))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        network[0].bias.copy_(torch.tensor([0.5, -0.5]))
        network[1].running_mean.copy_(torch.tensor([1.0, 0.0]))
        network[1].running_var.copy_(torch.tensor([4.0, 1.0]))
        network[3].weight.copy_(torch.tensor([[1.0, 10.0]]))
        network[3].bias.zero_()
    return network


IMAGE = torch.full((1, 1, 1, 1), 3.0)


def test_film_by_hand() -> None:
    network = tiny()
    # (3 + 0.5 - 1) / 2 = 1.25 and 6 - 0.5 = 5.5
    assert network(IMAGE).item() == 56.25
    choose_trained(network, Choice("film"))
    assert trained(network) == {"1.1.scale": 2, "1.1.shift": 2, "3.weight": 2, "3.bias": 1}
    assert network(IMAGE).item() == 56.25
    film = network[1][1]
    with torch.no_grad():
        film.scale.copy_(torch.tensor([1.0, -0.5]))
        film.shift.copy_(torch.tensor([0.25, 1.0]))
    # 1.25 * 2 + 0.25 = 2.75 and 5.5 * 0.5 + 1 = 3.75
    assert network(IMAGE).item() == 40.25
    assert merge(network)(IMAGE).item() == 40.25
    assert [type(layer) for layer in network] == [nn.Conv2d, FrozenBatchNorm2d, nn.Flatten, nn.Linear]


def test_lora_by_hand() -> None:
    network = tiny()
    generator = torch.Generator().manual_seed(0)
    up, down = add_lora(network, rank=1, alpha=3.0, layers="all", head=network[3], generator=generator)
    assert (tuple(up.shape), tuple(down.shape)) == ((2, 1), (1, 1))
    assert network(IMAGE).item() == 56.25
    with torch.no_grad():
        up.copy_(torch.tensor([[1.0], [-1.0]]))
        down.fill_(0.5)
    # Weights 1 + 3 * 0.5 = 2.5 and 2 - 1.5 = 0.5: (7.5 + 0.5 - 1) / 2 = 3.5 and 1.5 - 0.5 = 1
    assert network(IMAGE).item() == 13.5
    assert merge(network)(IMAGE).item() == 13.5
    assert network[0].weight.flatten().tolist() == [2.5, 0.5]
    assert type(network[0]) is nn.Conv2d


def test_the_rank_is_that_of_what_is_added() -> None:
    low_rank = LowRank(torch.zeros(6, 4, 3, 3), 2, 0.5, torch.Generator().manual_seed(0))
    with torch.no_grad():
        low_rank.up.normal_()
    added = low_rank(torch.zeros(6, 4, 3, 3)).flatten(1)
    assert torch.linalg.matrix_rank(added) == 2
    torch.testing.assert_close(added, 0.5 * low_rank.up @ low_rank.down)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        # GroupNorm of 64 (5), 128 (5), 256 (5) and 512 (5) channels: 4,800 of each; 512 x 17 + 17 of the head.
        (Choice("norm"), 2 * 4800 + 8721),
        (Choice("film"), 2 * 4800 + 8721),
        # Convolutions of residual networks have no biases; normalisations do.
        (Choice("bias"), 4800 + 8721),
        (Choice("lora", lora_rank=2, lora_layers="layer4.1.conv"), 2 * 2 * (512 + 512 * 9) + 8721),
        (Choice("lora", lora_rank=1, lora_layers=r"^conv1$"), 64 + 3 * 49 + 8721),
        (Choice("lora"), 296_105),
        (Choice("last_block"), 4_729_361),
    ],
)
def test_how_much_of_resnet18_is_trained(choice: Choice, expected: int) -> None:
    module = build("resnet18", 17, pretrained=False, weights=None, seed=0)
    choose_trained(module, choice)
    assert sum(trained(module).values()) == expected
    assert flatten(module, torch.device("cpu")).parameters.numel() == expected


def small_network(name: str) -> nn.Module:
    """Networks of torchvision's kinds, with few channels and layers."""
    torch.manual_seed(0)
    if name == "vision transformer":
        return VisionTransformer(32, 16, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)
    if name == "ConvNeXt":
        return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3)
    return build("mobilenet_v2", 3, pretrained=True, weights=None, seed=0)


@pytest.mark.parametrize("name", ["mobilenet_v2", "ConvNeXt", "vision transformer"])
@pytest.mark.parametrize("trainable", ["film", "lora"])
def test_an_adapted_network_begins_as_it_was_and_is_merged_into_what_it_became(name: str, trainable: Trainable) -> None:
    module = small_network(name).eval()
    names = {name for name, _ in module.named_parameters()}
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = module(images)
        choose_trained(module, Choice(trainable, lora_rank=2))
        torch.testing.assert_close(module(images), plain, rtol=1e-4, atol=1e-5)
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
        adapted = module(images)
        assert float((adapted - plain).abs().max()) > 1e-3
        torch.testing.assert_close(merge(module)(images), adapted, rtol=1e-3, atol=1e-3)
    assert {name for name, _ in module.named_parameters()} == names


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("choice", [Choice("film"), Choice("lora", lora_rank=2), Choice("norm"), Choice("bias")])
def test_the_fast_form_has_the_plain_one_s_gradients(choice: Choice, precision: Precision) -> None:
    module = build("resnet18", 3, pretrained=True, weights=None, seed=0).eval()
    choose_trained(module, choice)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2)).contiguous(
        memory_format=torch.channels_last
    )
    exact = copy.deepcopy(module).double()
    exact(images.double()).square().sum().backward()
    expected = torch.cat(
        [
            (p.grad.permute(0, 2, 3, 1) if p.ndim == 4 else p.grad).reshape(-1)
            for p in exact.parameters()
            if p.requires_grad and p.grad is not None
        ]
    )
    model = flatten(module, torch.device("cpu"), precision)
    model.load(model.parameters.clone())
    model.clear_gradients()
    model.logits(images).square().sum().backward()
    error = float((model.gradients.double() - expected).norm() / expected.norm())
    assert error < (1e-4 if precision == "fp32" else 0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainable": "lora", "lora_layers": "transformer"}, "lora_layers: no layer of this network is meant by"),
        (
            {"trainable": "lora", "lora_layers": "("},
            r"lora_layers: '\(' is neither one of all, linear, convolution nor",
        ),
        ({"trainable": "lora", "lora_rank": 0}, "lora_rank: 0 is impossible"),
        ({"trainable": "lora", "lora_alpha": -1.0}, "lora_alpha: -1.0 is impossible"),
    ],
)
def test_what_adapts_nothing_is_refused(tiny_store: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(small_config(tiny_store, model="small_cnn", **options))


@pytest.mark.parametrize(("trainable", "what"), [("norm", "normalisations"), ("bias", "biases")])
def test_a_network_without_any_of_them(trainable: Trainable, what: str) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 1))
    with pytest.raises(ConfigError, match=f"trainable: {trainable} needs {what}"):
        choose_trained(network, Choice(trainable))
    with pytest.raises(ConfigError, match="trainable: film needs normalisations"):
        add_film(network)


@pytest.mark.parametrize("trainable", ["film", "lora"])
def test_only_what_was_added_is_trained_sent_and_kept(tiny_store: Path, tmp_path: Path, trainable: str) -> None:
    config = small_config(
        tiny_store, model="small_cnn", trainable=trainable, lora_rank=2, run=tmp_path / "run", central_num_iterations=2
    )
    folder = RunFolder(train(config))
    state, _ = load_state(folder.last, torch.device("cpu"))
    # GroupNorms of 32, 64, 128 and 256 channels, and the head, which sees 512 numbers; four convolutions of 3 x 3.
    head = 512 * 4 + 4
    added = {"film": 2 * 480, "lora": 2 * (480 + 9 * (3 + 32 + 64 + 128))}[trainable]
    assert state.parameters.numel() == added + head
    assert float(state.parameters[:10].abs().sum() if trainable == "film" else state.parameters.norm()) > 0
    assert any("original" in name or name.startswith("features.0") for name in frozen_tensors_of(folder))


def frozen_tensors_of(folder: RunFolder) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder.fixed, framework="pt") as file:
        return list(file.keys())
