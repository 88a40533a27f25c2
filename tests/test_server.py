"""Server optimizers against torch.optim and by hand."""

from __future__ import annotations

import torch

from fedflair.config import TrainConfig
from fedflair.server import SERVER_OPTIMIZERS


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


def test_adagrad_equals_torch_adagrad() -> None:
    ours = SERVER_OPTIMIZERS["adagrad"](TrainConfig())
    parameters = torch.randn(20, generator=torch.Generator().manual_seed(0))
    theirs = torch.nn.Parameter(parameters.clone())
    optimizer = torch.optim.Adagrad([theirs], lr=0.1, eps=0.01)
    state = ours.init(parameters)
    for step in range(5):
        gradient = torch.randn(20, generator=torch.Generator().manual_seed(step + 1))
        theirs.grad = gradient.clone()
        optimizer.step()
        parameters, state = ours.apply(parameters, gradient, state, 0.1)
    torch.testing.assert_close(parameters, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_yogi_by_hand() -> None:
    # beta1 0.5, beta2 0.75, eps 0, rate 1, gradients 2 then 1.
    # Step 1: mean 1, square 0 + 0.25 * 4 = 1; corrected: 1 / 0.5 = 2 and sqrt(1 / 0.25) = 2; moved by -1.
    # Step 2: mean 1, square 1 - sign(1 - 1) * 0.25 = 1; corrected: 1 / 0.75 and sqrt(1 / 0.4375); moved by -0.881917.
    # Step 3, gradient 0.5: 0.25 < 1, so the square falls by 0.25 * 0.25 only (Adam: 0.8125).
    ours = SERVER_OPTIMIZERS["yogi"](TrainConfig(adam_beta1=0.5, adam_beta2=0.75, adaptivity_degree=1e-12))
    parameters = torch.tensor([0.0])
    state = ours.init(parameters)
    parameters, state = ours.apply(parameters, torch.tensor([2.0]), state, 1.0)
    assert abs(float(parameters) + 1.0) < 1e-6
    parameters, state = ours.apply(parameters, torch.tensor([1.0]), state, 1.0)
    assert float(state["square"]) == 1.0
    assert abs(float(parameters) + 1.0 + (1 / 0.75) / (1 / 0.4375) ** 0.5) < 1e-6
    _, state = ours.apply(parameters, torch.tensor([0.5]), state, 1.0)
    assert float(state["square"]) == 1.0 - 0.25 * 0.25
