"""Server optimizers against torch.optim and by hand."""

from __future__ import annotations

import pytest
import torch

from fedflair.config.groups.server import ServerOptions
from fedflair.config.train_config import TrainConfig
from fedflair.federated import server
from fedflair.federated.server import SERVER_OPTIMIZERS, optimizer_step


def test_adam_equals_torch_adamw() -> None:
    config = TrainConfig.of(central_weight_decay=0.01)
    ours = SERVER_OPTIMIZERS["adam"](config.server)
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


@pytest.mark.parametrize("name", list(SERVER_OPTIMIZERS))
def test_a_step_taken_in_pieces_is_the_whole_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PIECE", 64)
    optimizer = SERVER_OPTIMIZERS[name](ServerOptions(central_weight_decay=0.01))
    generator = torch.Generator().manual_seed(0)
    parameters = in_pieces = torch.randn(1000, generator=generator)
    state = state_in_pieces = optimizer.init(parameters)
    for _ in range(3):
        delta = torch.randn(1000, generator=generator)
        before = {key: tensor.clone() for key, tensor in state_in_pieces.items()}
        started_from = state_in_pieces
        in_pieces, state_in_pieces = optimizer_step(optimizer, in_pieces, delta, state_in_pieces, 0.1)
        parameters, state = optimizer.apply(parameters, -delta, state, 0.1)
        assert torch.equal(in_pieces, parameters)
        assert state_in_pieces.keys() == state.keys()
        assert all(torch.equal(state_in_pieces[key], state[key]) for key in state)
        assert all(torch.equal(started_from[key], before[key]) for key in before)


def test_sgd_with_rate_one_takes_the_mean_update() -> None:
    ours = SERVER_OPTIMIZERS["sgd"](ServerOptions())
    moved, _ = ours.apply(torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0]), {}, 1.0)
    assert moved.tolist() == [0.5, 3.0]


def test_avgm_equals_torch_sgd_with_momentum() -> None:
    ours = SERVER_OPTIMIZERS["avgm"](ServerOptions())
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
    ours = SERVER_OPTIMIZERS["adagrad"](ServerOptions())
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
    ours = SERVER_OPTIMIZERS["yogi"](ServerOptions(adam_beta1=0.5, adam_beta2=0.75, adaptivity_degree=1e-12))
    parameters = torch.tensor([0.0])
    state = ours.init(parameters)
    parameters, state = ours.apply(parameters, torch.tensor([2.0]), state, 1.0)
    assert abs(float(parameters) + 1.0) < 1e-6
    parameters, state = ours.apply(parameters, torch.tensor([1.0]), state, 1.0)
    assert float(state["square"]) == 1.0
    assert abs(float(parameters) + 1.0 + (1 / 0.75) / (1 / 0.4375) ** 0.5) < 1e-6
    _, state = ours.apply(parameters, torch.tensor([0.5]), state, 1.0)
    assert float(state["square"]) == 1.0 - 0.25 * 0.25
