"""Networks of timm, of transformers and of one's own: trained, resumed and evaluated, and what is refused."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import transformers
from huggingface_hub import constants

from fedflair.backends.threads import thread_backend
from fedflair.data.images.preprocessing import IMAGENET, Preprocessing
from fedflair.engine.flat_model import FlatModel
from fedflair.errors import ConfigError, DataError
from fedflair.evaluation.partition import score_partition
from fedflair.evaluation.run import score_run
from fedflair.federated.setup import initial_state, make_setup
from fedflair.models.dropout import SeededDropout, draws_noise, replace_drop_path, replace_dropout
from fedflair.models.multi_label_cnn import build, start_weights
from fedflair.models.normalization import FrozenBatchNorm2d, refuse_batch_statistics
from fedflair.models.preprocessing import preprocessing_of
from fedflair.runs.folder import RunFolder
from fedflair.training.round import run_round
from fedflair.training.train import train
from tests.small_runs import small_config

OWN = """
import torch
from torch import nn
from fedflair.backends.threads import thread_backend
from fedflair.data.images.preprocessing import Preprocessing


class Tiny(nn.Module):
    def __init__(self, num_labels, p=0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.drop = nn.Dropout(p)
        self.head = nn.Linear(8, num_labels)

    def forward(self, x):
        return self.head(self.drop(self.layers(x)))


class Noisy(Tiny):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, self.training)


def plain(num_labels):
    return Tiny(num_labels)


def dropping(num_labels):
    return Tiny(num_labels, 0.5), Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 24, "bicubic")


def noisy(num_labels):
    return Noisy(num_labels)


def too_many(num_labels):
    return Tiny(num_labels + 1)


def none(num_labels):
    return None


def failing(num_labels):
    raise ValueError("no\\n\\x1bnetwork")


def batch_norm(num_labels):
    return nn.Sequential(nn.BatchNorm1d(3), Tiny(num_labels))
"""


@pytest.fixture(scope="module", autouse=True)
def own_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_networks.py").write_text(OWN)
    sys.path.append(str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("own_networks", None)


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny DINOv2 as its repository would have it."""
    folder = tmp_path_factory.mktemp("dino")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14, num_labels=1000
    )
    transformers.Dinov2ForImageClassification(config).save_pretrained(folder)
    facts = {"image_processor_type": "BitImageProcessor", "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    facts |= {"crop_size": {"height": 28, "width": 28}, "size": {"shortest_edge": 32}, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder


def test_the_preprocessing_is_the_network_s_own(hugging_face: Path) -> None:
    found = {
        name: preprocessing_of(build(name, 3, pretrained=True, weights=None, seed=0))
        for name in ("timm:test_vit", f"hf:{hugging_face}", "own_networks:dropping", "own_networks:plain", "resnet18")
    }
    assert list(found.values()) == [
        Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 160, "bicubic"),
        Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 28, "bicubic"),
        Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 24, "bicubic"),
        IMAGENET,
        IMAGENET,
    ]


def test_it_reaches_the_network_s_inputs(tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training as in evaluation: what comes in is of the network's size and has its mean."""
    seen: list[torch.Tensor] = []
    logits = FlatModel.logits

    def recorded(model: FlatModel, inputs: torch.Tensor) -> torch.Tensor:
        seen.append(inputs.detach().clone())
        return logits(model, inputs)

    monkeypatch.setattr(FlatModel, "logits", recorded)
    setup = make_setup(small_config(tiny_store, model_type="own_networks:dropping", image_size=None), noise_seed=0)
    with thread_backend(setup.worker) as backend:
        state = initial_state(setup)
        run_round(state, setup.sampler.sample(0), setup=setup, backend=backend)
        num_training = len(seen)
        score_partition(state.parameters, "val", setup=setup.worker, backend=backend)
    assert 0 < num_training < len(seen)
    for inputs in seen:
        assert inputs.shape[1:] == (3, 24, 24)
        levels = (inputs * 0.25 + 0.5) * 255
        torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-3)
        assert 0 <= float(levels.min()) <= float(levels.max()) <= 255


@pytest.mark.parametrize("name", ["timm:test_efficientnet", "hf", "own_networks:dropping"])
def test_a_run_of_it_is_resumed_and_evaluated(name: str, tiny_store: Path, tmp_path: Path, hugging_face: Path) -> None:
    model_type = f"hf:{hugging_face}" if name == "hf" else name
    side = 28 if name == "hf" else 32
    config = small_config(tiny_store, model_type=model_type, image_size=side, cohort_size=2, evaluation_frequency=1)
    whole, halves = (
        RunFolder(train(config.changed(run=tmp_path / folder, central_num_iterations=rounds)))
        for folder, rounds in (("whole", 2), ("halves", 2))
    )
    # As if it had been killed after its first round.
    for path in (halves.summary, halves.last):
        path.unlink()
    train(config.changed(run=halves.path, central_num_iterations=2, resume=True, resume_from="previous"))
    expected = json.loads(whole.summary.read_text())["test"]
    assert json.loads(halves.summary.read_text())["test"] == expected
    assert score_run(halves.path, "test", "best").metrics["macro_ap"] == expected["macro_ap"]


def test_what_timm_s_normalisations_do_afterwards_is_kept() -> None:
    """timm's BatchNorm has the activation inside; with frozen statistics the network computes the same."""
    published = timm.create_model("test_efficientnet", num_classes=5).eval()
    module = build("timm:test_efficientnet", 5, pretrained=True, weights=published.state_dict(), seed=0).eval()
    refuse_batch_statistics(module)
    assert any(isinstance(layer, FrozenBatchNorm2d) for layer in module.modules())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(module(images), published(images), rtol=1e-4, atol=1e-5)


def test_stochastic_depth_of_other_libraries_draws_from_named_streams() -> None:
    module = build("timm:test_vit", 5, pretrained=True, weights=None, seed=0)
    assert not draws_noise(module)
    dropping = timm.create_model("test_vit", num_classes=5, drop_path_rate=0.5, proj_drop_rate=0.1)
    replace_drop_path(dropping)
    replace_dropout(dropping)
    assert {type(layer).__name__ for layer in dropping.modules() if "Drop" in type(layer).__name__} == {"SeededDropout"}
    assert sorted({layer.p for layer in dropping.modules() if isinstance(layer, SeededDropout)})[-1] == 0.5


def test_published_weights_of_a_folder(hugging_face: Path) -> None:
    weights = start_weights(f"hf:{hugging_face}", None)
    assert weights is not None
    module = build(f"hf:{hugging_face}", 3, pretrained=True, weights=weights, seed=0)
    name = "network.dinov2.embeddings.patch_embeddings.projection.weight"
    assert torch.equal(module.state_dict()[name], weights[name])
    assert module(torch.zeros(1, 3, 28, 28)).shape == (1, 3)


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("timm:resnet_18", "timm has no network 'resnet_18'; did you mean resnet18"),
        ("hf:/nowhere/at/all", r"hf:/nowhere/at/all cannot be had \("),
        ("absent_module:function", "absent_module cannot be imported \\(ModuleNotFoundError: .*PYTHONPATH"),
        ("own_networks:absent", "own_networks:absent: the module has no function 'absent'"),
        ("own_networks:OWN", "the module has no function 'OWN'"),
        ("own_networks:none", "own_networks:none gave NoneType; it must give a torch.nn.Module"),
        ("own_networks:failing", r"own_networks:failing\(4\) failed \(ValueError: no"),
        ("own_networks:too_many", r"own_networks:too_many gives \(2, 5\) for 2 images and 4 labels; it must give"),
        ("own_networks:noisy", "own_networks:noisy draws from torch's global generator in training"),
        ("own_networks:batch_norm", r"model: layer 0 \(BatchNorm1d\)"),
        ("resnet19", "no torchvision classification model 'resnet19'; e.g. resnet18, mobilenet_v2, timm:NAME, hf:NAME"),
    ],
)
def test_what_is_no_network_is_refused_in_one_line(tiny_store: Path, model_type: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_setup(small_config(tiny_store, model_type=model_type), noise_seed=0)


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("resnet19", "no torchvision classification model 'resnet19'"),
        ("fcn_resnet50", "no torchvision classification model 'fcn_resnet50'"),
        ("timm:resnet_18", "timm publishes no weights of resnet_18; use --pretrained false"),
    ],
)
def test_of_what_is_no_network_there_are_no_published_weights_either(model_type: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        start_weights(model_type, None)


def test_weights_that_are_nowhere_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"the weights of timm:test_vit cannot be had .*get timm/test_vit.r160_in1k"):
        start_weights("timm:test_vit", None)
    assert start_weights("own_networks:plain", None) is None


def test_a_network_whose_file_has_changed_is_another_one(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "changing_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    config = small_config(tiny_store, model_type="changing_network:plain", run=tmp_path / "run", cohort_size=2)
    config = config.changed(central_num_iterations=2, evaluation_frequency=1)
    run = RunFolder(train(config))
    assert json.loads(run.provenance.read_text())["network"] == hashlib.sha256(OWN.encode()).hexdigest()
    score_run(run.path, "test", "best")
    (tmp_path / "changing_network.py").write_text(OWN + "\n# Changed.\n")
    changed = "model_type: the file of changing_network:plain has changed since the run began; put it back"
    with pytest.raises(DataError, match=changed):
        score_run(run.path, "test", "best")
    run.summary.unlink()
    with pytest.raises(DataError, match=changed):
        train(config.changed(resume=True))
