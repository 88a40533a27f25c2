"""The tasks: coarse labels, fine labels, some labels, one label; from scratch and from a file of weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from fedflair.errors import ConfigError
from fedflair.federated.setup import initial_state, make_setup
from fedflair.models.normalization import FrozenBatchNorm2d
from fedflair.runs.folder import RunFolder, read_rows, read_summary
from fedflair.training.train import train
from tests.small_runs import small_config


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ("animal", "food", "outdoor", "plant")),
        ({"use_fine_grained_labels": True}, ("cat", "dog", "bread", "sky", "tree")),
        ({"binary_label": "food"}, ("food",)),
        ({"label_subset": ("plant", "animal")}, ("plant", "animal")),
        ({"label_subset": ("tree", "cat"), "use_fine_grained_labels": True}, ("tree", "cat")),
    ],
)
def test_a_run_learns_the_labels_asked_for(
    tiny_store: Path, tmp_path: Path, options: dict[str, Any], names: tuple[str, ...]
) -> None:
    config = small_config(tiny_store, model="small_cnn", central_num_iterations=2, run=tmp_path / "run", **options)
    setup = make_setup(config, noise_seed=0)
    assert setup.worker.labels.names == names
    assert setup.worker.module.head.out_features == len(names)
    folder = RunFolder(train(config))
    assert 0 < read_summary(folder)["test"]["macro_ap"] <= 1


def test_all_1628_fine_labels_fit_the_published_model() -> None:
    from fedflair.models.multi_label_cnn import build

    with torch.device("meta"):
        module = build("resnet18", 1628, pretrained=True, weights=None, seed=0)
    assert module(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, 1628)


def test_an_unknown_label_is_named(tiny_store: Path) -> None:
    with pytest.raises(ConfigError, match=r"binary_label: .* has no coarse label 'fod'; did you mean food\?"):
        make_setup(small_config(tiny_store, binary_label="fod"), noise_seed=0)
    with pytest.raises(ConfigError, match="label_subset: must hold at least one label, and none twice"):
        small_config(tiny_store, label_subset=("food", "food"))


def test_a_run_from_a_file_starts_at_its_weights_with_frozen_statistics(tiny_store: Path, tmp_path: Path) -> None:
    published = models.squeezenet1_1()
    torch.save(published.state_dict(), tmp_path / "squeezenet1_1.pth")
    options = {"pretrained": True, "pretrained_weights": tmp_path / "squeezenet1_1.pth", "central_num_iterations": 2}
    config = small_config(tiny_store, run=tmp_path / "run", **options)
    setup = make_setup(config, noise_seed=0)
    assert torch.equal(setup.worker.module.features[0].weight, published.features[0].weight)
    assert len(read_rows(RunFolder(train(config)))) == 2
    resnet = models.resnet18()
    resnet.bn1.running_mean.fill_(0.25)
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    options |= {"model_type": "resnet18", "pretrained_weights": tmp_path / "resnet18.pth", "trainable": "head"}
    setup = make_setup(small_config(tiny_store, **options), noise_seed=0)
    assert isinstance(setup.worker.module.bn1, FrozenBatchNorm2d)
    assert float(setup.worker.module.bn1.running_mean[0]) == 0.25
    # 512 weights and a bias for each of the four labels.
    assert initial_state(setup).parameters.numel() == 4 * 513


def test_small_users_can_be_left_out(tiny_store: Path) -> None:
    setup = make_setup(small_config(tiny_store, minimum_num_datapoints_per_user=4), noise_seed=0)
    assert sorted(setup.worker.clients.num_images(name) for name in setup.worker.clients.client_ids) == [4, 5, 9]
    with pytest.raises(ConfigError, match="minimum_num_datapoints_per_user: artificial users"):
        small_config(tiny_store, minimum_num_datapoints_per_user=4, dataset="flair_iid")
