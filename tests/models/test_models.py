"""Backbones, normalisation without batch statistics, and the flat vector."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from fedflair.engine.flat_model import flatten
from fedflair.errors import ConfigError, DataError
from fedflair.models import small_cnn
from fedflair.models.dropout import SeededDropout, replace_dropout, seed_dropout
from fedflair.models.multi_label_cnn import build, start_weights
from fedflair.models.normalization import FrozenBatchNorm2d, frozen_batch_norm, group_norm
from tests.data.download.fault_server import Files, serving

CPU = torch.device("cpu")


def test_frozen_batch_norm_equals_batch_norm_in_evaluation_and_trains_gamma_and_beta() -> None:
    norm = nn.BatchNorm2d(3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm(torch.randn(8, 3, 5, 5) * 3 + 1)
    frozen = frozen_batch_norm(norm)
    norm.eval()
    images = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(frozen(images), norm(images))
    before = frozen.running_mean.clone()
    frozen.train()
    frozen(images).sum().backward()
    assert torch.equal(frozen.running_mean, before)
    assert frozen.weight.grad is not None


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (16, 16), (24, 24), (58, 29), (33, 11)])
def test_group_norm_takes_the_most_groups_that_divide(channels: int, groups: int) -> None:
    norm = group_norm(nn.BatchNorm2d(channels))
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups


def test_from_scratch_has_no_batch_norm_and_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = build("resnet18", 17, pretrained=False, weights=None, seed=3)
    state = torch.get_rng_state()
    two = build("resnet18", 17, pretrained=False, weights=None, seed=3)
    other = build("resnet18", 17, pretrained=False, weights=None, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in one.modules())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "squeezenet1_1", "densenet121", "vit_b_16", "googlenet"])
def test_other_backbones_give_a_row_of_logits(name: str) -> None:
    module = build(name, 5, pretrained=False, weights=None, seed=0)
    flat = flatten(module, CPU)
    side = 224 if name == "vit_b_16" else 64
    with torch.no_grad():
        assert module(torch.zeros(2, 3, side, side)).shape == (2, 5)
    assert flat.parameters.numel() == sum(p.numel() for p in module.parameters())


def test_pretrained_weights_load_all_but_the_head(tmp_path: Path) -> None:
    published = models.resnet18(num_classes=1000)
    published.bn1.running_mean.fill_(0.25)
    path = tmp_path / "resnet18.pth"
    torch.save(published.state_dict(), path)
    module = build("resnet18", 17, pretrained=True, weights=start_weights("resnet18", path), seed=0)
    assert isinstance(module.bn1, FrozenBatchNorm2d)
    assert module.bn1.running_mean[0] == 0.25
    assert torch.equal(module.layer4[1].conv2.weight, published.layer4[1].conv2.weight)
    assert module.fc.weight.shape == (17, 512)
    save_file(published.state_dict(), tmp_path / "resnet18.safetensors")
    assert start_weights("resnet18", tmp_path / "resnet18.safetensors").keys() == published.state_dict().keys()


def test_bad_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.pth: no such file"):
        start_weights("resnet18", tmp_path / "absent.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"junk\.pth"):
        start_weights("resnet18", tmp_path / "junk.pth")
    with pytest.raises(DataError, match="do not fit resnet18"):
        build(
            "resnet18",
            17,
            pretrained=True,
            weights=models.resnet34().state_dict() | {"conv1.weight": torch.ones(1)},
            seed=0,
        )
    with pytest.raises(ConfigError, match="resnet19"):
        build("resnet19", 17, pretrained=False, weights=None, seed=0)


def test_without_network_the_error_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    # A proxy on a closed port of this machine: the download really fails, whatever network there is.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    put = rf"put https://.*resnet18-.*\.pth at {tmp_path}.*--pretrained_weights"
    with pytest.raises(ConfigError, match=put) as raised:
        start_weights("resnet18", None)
    assert "(Connection refused)" in str(raised.value)
    assert "--endpoint" not in str(raised.value)


def test_published_weights_are_fetched_once_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.save(models.resnet18(num_classes=1000).state_dict(), tmp_path / "weights.pth")
    content = (tmp_path / "weights.pth").read_bytes()
    name = f"/resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    published = models.get_model_weights("resnet18").DEFAULT
    with serving(Files({name: content, "/resnet18-00000000.pth": content})) as files:
        monkeypatch.setattr(published.value, "url", files.url + "/resnet18-00000000.pth")
        with pytest.raises(ConfigError, match=r"its hash is [0-9a-f]{64}, not 00000000"):
            start_weights("resnet18", None)
        monkeypatch.setattr(published.value, "url", files.url + name)
        for _ in range(2):
            assert start_weights("resnet18", None)["fc.weight"].shape == (1000, 512)
        assert files.gets(name) == [""]
    assert [path.name for path in (tmp_path / "hub" / "checkpoints").iterdir()] == [name[1:]]
    (tmp_path / "hub" / "checkpoints" / name[1:]).write_bytes(b"junk")
    with pytest.raises(DataError, match=r"\.pth: (refused|not a weights file)"):
        start_weights("resnet18", None)


def test_the_flat_vector_is_the_model() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2))
    before = [p.detach().clone() for p in module.parameters()]
    inputs = torch.randn(4, 2, 3, 3)
    expected = module(inputs).detach()
    flat = flatten(module, CPU)
    torch.testing.assert_close(module(inputs).detach(), expected)
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters()))
    module(inputs).square().sum().backward()
    gradients = torch.autograd.grad(module(inputs).square().sum(), list(module.parameters()))
    channels_last = gradients[0].permute(0, 2, 3, 1)
    whole = torch.cat([channels_last.flatten(), *(g.flatten() for g in gradients[1:])])
    torch.testing.assert_close(flat.gradients, whole)
    flat.parameters.zero_()
    assert not any(p.any() for p in module.parameters())


def test_dropout_draws_from_its_generator_only() -> None:
    module = nn.Sequential(nn.Dropout(0.5))
    replace_dropout(module)
    assert isinstance(module[0], SeededDropout)
    seed_dropout(module, torch.Generator().manual_seed(1))
    one = module(torch.ones(1000))
    seed_dropout(module, torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    assert torch.equal(module(torch.ones(1000)), one)
    assert set(one.tolist()) == {0.0, 2.0}
    module.eval()
    assert torch.equal(module(torch.ones(5)), torch.ones(5))


@pytest.mark.parametrize("p", [0.1, 0.2, 0.7])
@pytest.mark.parametrize("kind", ["elements", "rows", "batch"])
def test_dropout_zeroes_a_share_of_p_and_keeps_the_mean(p: float, kind: str) -> None:
    dropout = SeededDropout(p, rowwise=kind != "elements", batchwise=kind == "batch").train()
    dropout.generator = torch.Generator().manual_seed(3)
    drawn = [dropout(torch.ones(100, 4, 5)) for _ in range(20 if kind != "batch" else 2000)]
    whole = torch.stack(drawn)
    assert float((whole == 0).float().mean()) == pytest.approx(p, abs=0.04)
    assert whole.unique().tolist() == pytest.approx([0.0, 1 / (1 - p)])
    # What of one row is dropped, and what of one call: of a path, all or nothing.
    by_row = whole.reshape(len(drawn), 100, 20)
    whole_rows = (by_row == by_row[..., :1]).all(-1)
    assert bool(whole_rows.all()) == (kind != "elements")
    one_call = (by_row[0] == by_row[0, 0, 0]).all()
    assert bool(one_call) == (kind == "batch")


def test_the_small_network() -> None:
    module = small_cnn.build("", 5, pretrained=False, weights=None, seed=1)
    again = small_cnn.build("", 5, pretrained=False, weights=None, seed=1)
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters()))
