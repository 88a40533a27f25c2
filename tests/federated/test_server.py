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


def test_adam_bc_by_hand() -> None:
    # beta1 0.5, beta2 0.75, least denominator 0.1, rate 1, gradients 3 then 1, noise of variance 5 then 2.
    # Step 1: mean 1.5, square 9/4, noise 5/4; corrected: 3 and sqrt((9 - 5)/4 / 0.25) = 2; moved by -1.5.
    # Step 2: mean 1.25, square 27/16 + 1/4, noise 15/16 + 1/2; (31 - 23)/16 / 0.4375 = 8/7; 1.25 / 0.75 over its root.
    ours = SERVER_OPTIMIZERS["adam_bc"](ServerOptions(adam_beta1=0.5, adam_beta2=0.75, adaptivity_degree=0.1))
    parameters = torch.tensor([0.0])
    state = ours.init(parameters)
    parameters, state = optimizer_step(ours, parameters, torch.tensor([-3.0]), state, 1.0, torch.tensor(5.0))
    assert float(parameters) == pytest.approx(-1.5, rel=1e-6)
    parameters, state = optimizer_step(ours, parameters, torch.tensor([-1.0]), state, 1.0, torch.tensor(2.0))
    assert float(parameters) == pytest.approx(-1.5 - (1.25 / 0.75) / (8 / 7) ** 0.5, rel=1e-6)
    assert float(state["noise"]) == 23 / 16


def test_adam_bc_divides_by_no_less_than_its_floor() -> None:
    ours = SERVER_OPTIMIZERS["adam_bc"](ServerOptions(adam_beta1=0.0, adaptivity_degree=0.25))
    state = ours.init(torch.zeros(1))
    moved, _ = optimizer_step(ours, torch.zeros(1), torch.tensor([2.0]), state, 1.0, torch.tensor(4.5))
    assert float(moved) == pytest.approx(2.0 / 0.25, rel=1e-6)


def test_adam_bc_without_noise_is_adam() -> None:
    options = ServerOptions(adaptivity_degree=1e-12, central_weight_decay=0.1)
    start = torch.randn(100, generator=torch.Generator().manual_seed(0))
    found = []
    for name in ("adam", "adam_bc"):
        ours, parameters = SERVER_OPTIMIZERS[name](options), start
        state = ours.init(parameters)
        for _ in range(3):
            parameters, state = optimizer_step(ours, parameters, start.cos(), state, 0.1)
        found.append(parameters)
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-7)


def test_adam_bc_takes_steps_of_one_size_under_noise() -> None:
    # Gradients of 1 and 1/4 under noise of deviation 10, seen for long: Adam divides both by the noise, and its steps
    # are as large as the gradients; without the noise's variance they are of one size, which is what Adam is for.
    gradient, steps = torch.tensor([1.0, 0.25]), {}
    for name in ("adam", "adam_bc"):
        ours = SERVER_OPTIMIZERS[name](ServerOptions(adam_beta1=0.0, adam_beta2=1 - 1e-9, adaptivity_degree=1e-3))
        state = {**ours.init(gradient), "square": gradient**2 + 100.0, "step": torch.tensor(10**12)}
        if name == "adam_bc":
            state["noise"] = torch.tensor(100.0, dtype=torch.float64)
        moved, _ = optimizer_step(ours, torch.zeros(2), gradient, state, 1.0, torch.tensor(100.0))
        steps[name] = float(moved[0] / moved[1])
    assert steps["adam"] == pytest.approx(4.0, rel=0.01)
    assert steps["adam_bc"] == pytest.approx(1.0, rel=0.01)


def test_noise_of_other_variances_in_other_entries_is_taken_out_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = SERVER_OPTIMIZERS["adam_bc"](ServerOptions())
    delta, variances = torch.full((10,), 2.0), torch.arange(10.0)
    whole, whole_state = optimizer_step(ours, torch.zeros(10), delta, ours.init(torch.zeros(10)), 1.0, variances)
    monkeypatch.setattr(server, "PIECE", 3)
    moved, state = optimizer_step(ours, torch.zeros(10), delta, ours.init(torch.zeros(10)), 1.0, variances)
    assert torch.equal(moved, whole)
    assert torch.equal(state["noise"], whole_state["noise"])
    for entry in range(10):
        alone, _ = optimizer_step(ours, torch.zeros(1), delta[:1], ours.init(torch.zeros(1)), 1.0, variances[entry])
        assert float(moved[entry]) == pytest.approx(float(alone), rel=1e-6)
