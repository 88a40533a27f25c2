"""Training the head or the last blocks only, and what autograd does then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedflair.engine.flat_model import flatten
from fedflair.errors import ConfigError
from fedflair.federated.setup import initial_state, make_setup
from fedflair.models.multi_label_cnn import build
from fedflair.models.normalization import refuse_batch_statistics
from fedflair.models.small_cnn import SmallCNN
from fedflair.models.trainable import Choice, choose_trained
from fedflair.runs.folder import RunFolder
from fedflair.training.checkpoint import load_state
from fedflair.training.train import train
from tests.small_runs import small_config


def trained_names(module: nn.Module) -> list[str]:
    return [name for name, parameter in module.named_parameters() if parameter.requires_grad]


def resnet() -> nn.Module:
    return build("resnet18", 17, pretrained=False, weights=None, seed=0)


def test_the_head_of_resnet18() -> None:
    module = resnet()
    choose_trained(module, Choice("head", 1))
    assert trained_names(module) == ["fc.weight", "fc.bias"]
    # 512 x 17 + 17
    assert flatten(module, torch.device("cpu")).parameters.numel() == 8721


@pytest.mark.parametrize(
    ("num_blocks", "first"), [(1, "layer4.1.conv1"), (2, "layer4.0.conv1"), (8, "layer1.0.conv1"), (9, "conv1")]
)
def test_the_last_blocks_of_resnet18(num_blocks: int, first: str) -> None:
    module = resnet()
    choose_trained(module, Choice("last_block", num_blocks))
    names = trained_names(module)
    assert names[0] == f"{first}.weight"
    everything = [name for name, _ in module.named_parameters()]
    assert names == everything[everything.index(names[0]) :]


def test_more_blocks_than_there_are() -> None:
    with pytest.raises(ConfigError, match="num_trainable_blocks: 10 is more than the 9 blocks of this model"):
        choose_trained(resnet(), Choice("last_block", 10))


def test_the_small_network() -> None:
    module = SmallCNN(5)
    choose_trained(module, Choice("last_block", 1))
    assert trained_names(module) == [
        "features.12.weight", "features.13.weight", "features.13.bias", "head.weight", "head.bias",
    ]  # fmt: skip


def test_autograd_stops_at_the_first_trained_layer() -> None:
    module = resnet()
    choose_trained(module, Choice("head", 1))
    seen: list[bool] = []
    module.fc.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0].requires_grad))
    module(torch.zeros(2, 3, 64, 64)).sum().backward()
    assert seen == [False]
    assert module.conv1.weight.grad is None
    assert module.fc.weight.grad is not None


@pytest.mark.parametrize("options", [{"trainable": "head"}, {"trainable": "last_block", "num_trainable_blocks": 2}])
def test_a_run_trains_them_and_can_be_evaluated(tiny_store: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    from fedflair.commands.evaluate import evaluate
    from fedflair.runs.folder import read_summary

    config = small_config(tiny_store, model="small_cnn", run=tmp_path / "run", **options)
    setup = make_setup(config, noise_seed=0)
    start = initial_state(setup).parameters
    folder = RunFolder(train(config))
    end = load_state(folder.last, torch.device("cpu"))[0].parameters
    assert end.shape == start.shape
    assert end.numel() == sum(p.numel() for p in setup.worker.module.parameters() if p.requires_grad)
    assert not torch.equal(start, end)
    evaluate(run=folder.path, partition="val")
    assert read_summary(folder)["test"]["macro_ap"] > 0


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(4),
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.BatchNorm3d(4),
        nn.SyncBatchNorm(4),
        nn.LazyBatchNorm2d(),
        nn.InstanceNorm2d(4, track_running_stats=True),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_live_batch_statistics_are_refused(layer: nn.Module) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(layer))
    with pytest.raises(ConfigError, match=rf"layer 1\.0 \({type(layer).__name__}\) takes statistics"):
        refuse_batch_statistics(module)


def test_harmless_normalisation_is_not_refused() -> None:
    harmless = nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.InstanceNorm2d(4))
    for module in (harmless, build("resnet18", 5, pretrained=True, weights=None, seed=0)):
        refuse_batch_statistics(module)
        # One that is not, beside them, is what is refused.
        with pytest.raises(ConfigError, match=r"layer 1 \(BatchNorm2d\)"):
            refuse_batch_statistics(nn.Sequential(module, nn.BatchNorm2d(4)))


def test_a_run_with_live_batch_norm_is_refused(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of one's own, in the table, that forgot to replace it."""
    from fedflair.models import MODELS

    own = replace(MODELS["small_cnn"], build=lambda *_, **__: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    monkeypatch.setitem(MODELS, "small_cnn", own)
    with pytest.raises(ConfigError, match=r"model: layer 1 \(BatchNorm2d\)"):
        make_setup(small_config(tiny_store, model="small_cnn"), noise_seed=0)


def test_images_that_are_too_small_for_a_backbone_are_refused_at_the_start(tiny_store: Path) -> None:
    with pytest.raises(ConfigError, match="image_size: alexnet cannot take images of 32 px"):
        make_setup(small_config(tiny_store, model_type="alexnet"), noise_seed=0)
