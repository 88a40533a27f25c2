"""Normalisation, ReLU and max-pooling in one against the three layers in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import max_pool2d, relu

from fedflair.engine.cpu.kernels import library
from fedflair.engine.cpu.pooled_norm import PooledNorm, is_its_pool
from fedflair.engine.flat_model import flatten
from fedflair.models.normalization import FrozenBatchNorm2d
from tests.engine.cpu.test_fused import norm_layer

pytestmark = [
    pytest.mark.skipif(library() is None, reason="this machine has no C compiler"),
    pytest.mark.usefixtures("one_operator_thread"),
]


def signed_norm(kind: str, channels: int) -> nn.GroupNorm | FrozenBatchNorm2d:
    """Every other scale is negative: then the smallest of a window's pixels wins."""
    norm = norm_layer(kind, channels)
    with torch.no_grad():
        norm.weight[::2].neg_()
    return norm


@pytest.mark.parametrize("takes_over", [False, True])
@pytest.mark.parametrize("kind", ["group", "frozen"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (10, 3), (1, 1), (1, 6), (2, 1), (37, 64)])
def test_equals_the_three_layers(height: int, width: int, kind: str, takes_over: bool) -> None:
    generator = torch.Generator().manual_seed(height)
    x = torch.randn(3, 32, height, width, generator=generator, dtype=torch.float64)
    exact_x = x.clone().requires_grad_()
    norm = signed_norm(kind, 32)
    exact = copy.deepcopy(norm).double()
    y = max_pool2d(relu(exact(exact_x)), 3, 2, 1)
    dy = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    y.backward(dy)
    # An inner node, as a convolution's output is.
    leaf = x.float().requires_grad_()
    inner = leaf.contiguous(memory_format=torch.channels_last).mul(1.0)
    before = inner.detach().clone()
    fast_y = PooledNorm(norm, takes_over=takes_over)(inner)
    fast_y.backward(dy.float())
    # Its memory has the gradient then, or is as it was.
    assert leaf.grad is not None
    assert torch.equal(inner.detach(), leaf.grad if takes_over else before)
    pairs = [(fast_y, y), (leaf.grad, exact_x.grad), (norm.weight.grad, exact.weight.grad)]
    for ours, expected in [*pairs, (norm.bias.grad, exact.bias.grad)]:
        assert ours is not None and expected is not None
        error = (ours.detach() - expected.detach()).norm()
        assert float(error) <= 2e-5 * float(expected.detach().norm()) + 1e-6


def test_bfloat16_is_the_rounded_float32() -> None:
    norm, x = signed_norm("group", 32), torch.randn(2, 32, 9, 9).contiguous(memory_format=torch.channels_last)
    dy = torch.randn(2, 32, 5, 5).bfloat16()
    results = []
    for inputs in (x.bfloat16().float(), x.bfloat16()):
        inputs.requires_grad_()
        y = PooledNorm(norm)(inputs)
        assert y.dtype == inputs.dtype
        (dx,) = torch.autograd.grad(y, inputs, dy.to(y.dtype))
        results.append((y, dx))
    (expected_y, expected_dx), (y, dx) = results
    assert torch.equal(y, expected_y.bfloat16())
    assert torch.equal(dx, expected_dx.bfloat16())


def test_of_equal_pixels_the_first_wins_and_of_none_above_zero_none() -> None:
    norm = FrozenBatchNorm2d(16, 0.0)
    x = torch.ones(1, 16, 5, 5)
    x[:, 8:] = -1.0
    x.requires_grad_()
    y = PooledNorm(norm)(x)
    assert torch.equal(y[:, :8], torch.ones(1, 8, 3, 3)) and torch.equal(y[:, 8:], torch.zeros(1, 8, 3, 3))
    y.sum().backward()
    plain = x.detach().clone().requires_grad_()
    max_pool2d(relu(plain), 3, 2, 1).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, plain.grad)


def test_what_is_not_a_number_stays_one() -> None:
    x = torch.zeros(1, 16, 4, 4)
    x[0, 0, 1, 1] = float("nan")
    y = PooledNorm(FrozenBatchNorm2d(16, 1e-5))(x)
    assert y[0, 0].isnan().all() and not y[0, 1:].isnan().any()


@pytest.mark.parametrize(
    ("pool", "fits"),
    [
        (nn.MaxPool2d(3, 2, 1), True),
        (nn.MaxPool2d((3, 3), (2, 2), (1, 1)), True),
        (nn.MaxPool2d(3, 2, 0), False),
        (nn.MaxPool2d(2, 2), False),
        (nn.MaxPool2d(3, 2, 1, ceil_mode=True), False),
        (nn.MaxPool2d(3, 2, 1, dilation=2), False),
        (nn.AvgPool2d(3, 2, 1), False),
    ],
)
def test_other_poolings_stay_as_they_are(pool: nn.Module, fits: bool) -> None:
    assert is_its_pool(pool) == fits
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), pool)
    model = flatten(module, torch.device("cpu"))
    assert model.fast is not None
    assert any(isinstance(layer, PooledNorm) for layer in model.fast.network.modules()) == fits
    images = torch.randn(2, 3, 21, 24).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model.fast.network(images), module(images))
