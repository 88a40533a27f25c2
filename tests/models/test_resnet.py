"""The residual networks against torchvision's, from which they differ in where their code lies only."""

from __future__ import annotations

import pytest
import torch
from torchvision import models

from fedflair.models.resnet import RESNETS, ResNet


@pytest.mark.parametrize("name", list(RESNETS))
def test_is_torchvisions_network(name: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = models.get_model(name, weights=None, num_classes=5).eval()
        torch.manual_seed(1)
        ours = ResNet(RESNETS[name], 5).eval()
    # The same names in the same order, for published weights; the same initial values, from the same random numbers.
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(tensor, theirs.state_dict()[key]) for key, tensor in ours.state_dict().items())
    images = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(2))
    for mode in (False, True):
        assert torch.equal(ours.train(mode)(images), theirs.train(mode)(images))
