"""Files of weights in the forms that they are published in, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedflair.errors import ConfigError, DataError
from fedflair.federated.networks import build_model
from fedflair.models.multi_label_cnn import build
from fedflair.models.small_cnn import SmallCNN
from fedflair.models.weights import fit, read_weights
from tests.small_runs import small_config

State = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": state, "epoch": 3, "arch": "resnet18", "optimizer": {"lr": 0.1}},
        lambda state: {"model": state, "args": [1, 2]},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
    ],
)
def test_the_forms_that_weights_are_published_in(tmp_path: Path, wrapped: Callable[[State], Any]) -> None:
    state = SmallCNN(3).state_dict()
    torch.save(wrapped(dict(state)), tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth")
    assert list(found) == list(state)
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.zeros(1)], {"a": torch.zeros(1), "b": 2}])
def test_a_file_without_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"w\.pth: not a plain mapping of names to tensors"):
        read_weights(tmp_path / "w.pth")


def test_what_does_not_fit_is_counted_and_named() -> None:
    state = SmallCNN(3).state_dict()
    lacking = {name: tensor for name, tensor in state.items() if not name.startswith("features.0")}
    with pytest.raises(DataError) as raised:
        fit(SmallCNN(3), {**lacking, "features.4.weight": torch.ones(1), "stem\x1b.weight": torch.ones(1)}, "small_cnn")
    assert str(raised.value) == (
        "pretrained_weights: do not fit small_cnn: of 14 tensors 1 missing (features.0.weight), 1 of another shape "
        "(features.4.weight), 1 unknown to it (stem\\x1b.weight); check --model_type"
    )
    with pytest.raises(DataError, match=r"of 14 tensors 14 missing \(features.0.weight, .*, features.1.bias, \.\.\.\)"):
        fit(SmallCNN(3), {}, "small_cnn")


@pytest.mark.parametrize(("published", "wanted"), [(1628, 17), (17, 1628)])
def test_a_file_of_other_labels_starts_everything_but_the_head(published: int, wanted: int) -> None:
    state = build("resnet18", published, pretrained=False, weights=None, seed=1).state_dict()
    module = build("resnet18", wanted, pretrained=False, weights=None, seed=0)
    fresh = module.fc.weight.detach().clone()
    fit(module, state, "resnet18")
    assert torch.equal(module.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert torch.equal(module.fc.weight, fresh)


def test_a_network_without_published_weights_says_so_before_anything_is_fetched(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    config = small_config(tiny_store, model="small_cnn", pretrained=True)
    with pytest.raises(ConfigError, match="pretrained: small_cnn has no published weights; use --pretrained false, or"):
        build_model(config, 4)
    trained = SmallCNN(4)
    nn.init.ones_(trained.head.bias)
    torch.save(trained.state_dict(), tmp_path / "own.pth")
    module = build_model(config.changed(pretrained_weights=tmp_path / "own.pth"), 4)
    assert torch.equal(module.head.bias, torch.ones(4))
