"""Server optimizers against torch.optim, and the published schedule."""

from __future__ import annotations

import pytest
import torch

from fedflair.config import TrainConfig
from fedflair.server import SERVER_OPTIMIZERS, server_learning_rate


def test_adam_equals_torch_adamw() -> None:
    config = TrainConfig(central_weight_decay=0.01)
    ours = SERVER_OPTIMIZERS["adam"](config)
    parameters = torch.randn(20, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.Parameter(parameters.clone())
    optimizer = torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.99), eps=0.01, weight_decay=0.01)
    state = ours.init(parameters)
    for step in range(5):
        gradient = torch.randn(20, generator=torch.Generator().manual_seed(step + 1))
        theirs.grad = gradient.clone()
        optimizer.step()
        parameters, state = ours.apply(parameters, gradient, state, 0.1)
    torch.testing.assert_close(parameters, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_sgd_with_rate_one_takes_the_mean_update() -> None:
    ours = SERVER_OPTIMIZERS["sgd"](TrainConfig())
    moved, _ = ours.apply(torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0]), {}, 1.0)
    assert moved.tolist() == [0.5, 3.0]


def test_the_published_schedule() -> None:
    config = TrainConfig()
    assert server_learning_rate(config, 0) == 0.0
    assert server_learning_rate(config, 15) == pytest.approx(0.05)
    assert server_learning_rate(config, 30) == pytest.approx(0.1)
    assert server_learning_rate(config, (30 + 4999) // 2) == pytest.approx(0.06, abs=1e-4)
    assert server_learning_rate(config, 4999) == pytest.approx(0.02)


def test_avgm_equals_torch_sgd_with_momentum() -> None:
    ours = SERVER_OPTIMIZERS["avgm"](TrainConfig())
    parameters = torch.randn(20, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.Parameter(parameters.clone())
    optimizer = torch.optim.SGD([theirs], lr=0.3, momentum=0.9)
    state = ours.init(parameters)
    for step in range(5):
        gradient = torch.randn(20, generator=torch.Generator().manual_seed(step + 1))
        theirs.grad = gradient.clone()
        optimizer.step()
        parameters, state = ours.apply(parameters, gradient, state, 0.3)
    torch.testing.assert_close(parameters, theirs.detach(), rtol=1e-5, atol=1e-6)
