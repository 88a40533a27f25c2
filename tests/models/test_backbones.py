"""Every backbone that pfl-research's FLAIR benchmark offers (its ``--model_type``)."""

from __future__ import annotations

import pytest
import torch

from fedflair.engine.flat_model import flatten
from fedflair.federated.client import LocalTraining, sgd_step
from fedflair.models.multi_label_cnn import backbones, build
from fedflair.models.normalization import refuse_batch_statistics
from fedflair.models.trainable import Choice, choose_trained

# fmt: off
OFFERED = [
    "alexnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d",
    "wide_resnet50_2", "wide_resnet101_2", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19_bn",
    "vgg19", "squeezenet1_0", "squeezenet1_1", "inception_v3", "densenet121", "densenet169", "densenet201",
    "densenet161", "googlenet", "mobilenet_v2", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3",
    "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0",
]
# fmt: on
# One of each family that trains within seconds; how the others train is a matter of size.
TRAINED = ["resnet18", "squeezenet1_1", "googlenet", "mnasnet0_5", "shufflenet_v2_x0_5"]


def test_all_of_them_are_there() -> None:
    assert len(OFFERED) == 35
    assert not set(OFFERED) - set(backbones())


@pytest.mark.parametrize("name", OFFERED)
def test_each_builds_without_batch_statistics_and_with_a_head_of_its_own(name: str) -> None:
    """On the meta device: shapes without numbers."""
    with torch.device("meta"):
        module = build(name, 17, pretrained=True, weights=None, seed=0)
    refuse_batch_statistics(module)
    choose_trained(module, Choice("head", 1))
    trained = {key: p for key, p in module.named_parameters() if p.requires_grad}
    assert [p.shape[0] for p in trained.values()] == [17, 17]
    num_head = sum(p.numel() for p in trained.values())
    choose_trained(module, Choice("last_block", 2))
    assert num_head < sum(p.numel() for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("name", "pretrained"), [*((name, False) for name in TRAINED), ("resnet18", True), ("mobilenet_v2", True)]
)
def test_a_step_moves_the_weights_and_no_statistic(name: str, pretrained: bool) -> None:
    model = flatten(build(name, 5, pretrained=pretrained, weights=None, seed=0).train(), torch.device("cpu"))
    before = model.parameters.clone()
    buffers = {key: buffer.clone() for key, buffer in model.module.named_buffers()}
    options = LocalTraining(learning_rate=0.1, num_epochs=1, batch_size=2, max_grad_norm=10.0, image_size=64)
    inputs = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loss = sgd_step(model, inputs, torch.eye(5)[:2], options)
    assert torch.isfinite(loss)
    assert torch.isfinite(model.parameters).all()
    assert not torch.equal(model.parameters, before)
    for key, buffer in model.module.named_buffers():
        assert torch.equal(buffer, buffers[key]), key
