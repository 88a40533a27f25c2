"""A network cut before its head: the two parts are the whole, where the head is a linear layer at the very end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from fedflair.models.dropout import draws_noise
from fedflair.models.frozen_body import cut_before_head
from fedflair.models.multi_label_cnn import build
from fedflair.models.preprocessing import preprocessing_of
from fedflair.models.small_cnn import SmallCNN
from fedflair.models.trainable import Choice, choose_trained


class HalvedLogits(nn.Module):
    """Does more after its head than nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Flatten(), nn.Linear(3 * 64 * 64, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images)) / 2
        return logits


class AsksItsHead(nn.Module):
    """Cannot go without its head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Flatten(), nn.Linear(3 * 64 * 64, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(images)[:, : self.head.in_features])
        return logits


def head_only(module: nn.Module) -> nn.Module:
    choose_trained(module, Choice("head"))
    return module


@pytest.mark.parametrize(
    ("name", "dimension"),
    [("resnet18", 512), ("mobilenet_v2", 1280), ("timm:test_vit", 64), ("timm:test_efficientnet", 256), ("hf", 32)],
)
def test_the_parts_are_the_whole(tmp_path: Path, name: str, dimension: int) -> None:
    size = 160 if "vit" in name else 64
    if name == "hf":
        size = 28
        config = transformers.Dinov2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14, num_labels=9
        )
        transformers.Dinov2ForImageClassification(config).save_pretrained(tmp_path)
        facts = '{"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 28}}'
        (tmp_path / "preprocessor_config.json").write_text(facts)
        name = f"hf:{tmp_path}"
    module = head_only(build(name, 3, pretrained=False, weights=None, seed=0))
    assert not draws_noise(module)
    cut = cut_before_head(module, size)
    assert cut is not None
    assert cut.dimension == dimension
    assert preprocessing_of(cut.body) == preprocessing_of(module)
    images = torch.randn(3, 3, size, size)
    with torch.no_grad():
        features = cut.body(images)
        assert features.shape == (3, dimension)
        assert torch.equal(cut.head(features), module.eval()(images))
    # The head is the network's own, and the body a copy with nothing left to train.
    assert [p.shape for p in cut.head.parameters()] == [(3, dimension), (3,)]
    assert {id(p) for p in cut.head.parameters()} == {id(p) for p in module.parameters() if p.requires_grad}
    assert not any(p.requires_grad for p in cut.body.parameters())


@pytest.mark.parametrize(
    "module",
    [HalvedLogits(), AsksItsHead(), nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())],
    ids=["more after it", "asked for", "a convolution"],
)
def test_what_cannot_be_cut_is_not(module: nn.Module) -> None:
    assert cut_before_head(head_only(module), 64) is None


def test_the_small_network_s_head_sees_means_and_maxima() -> None:
    cut = cut_before_head(head_only(SmallCNN(4)), 32)
    assert cut is not None
    assert cut.dimension == 512
