"""Convolutions as matrix products against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedflair.engine.cpu import matrix_convolution as matrix


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(3, 1, 1, 1), (3, 2, 1, 1), (1, 2, 0, 1), (7, 2, 3, 1), (3, 1, 2, 2), (3, 3, 0, 1), ((1, 3), (2, 1), (0, 1), 1)],
)
def test_output_and_both_gradients(kernel: int, stride: int, padding: int, dilation: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 6, kernel, stride, padding, dilation).double().to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 11, 9).double().contiguous(memory_format=torch.channels_last).requires_grad_()
    y = convolution(x)
    dy = torch.randn_like(y)
    dx, dw = torch.autograd.grad(y, (x, convolution.weight), dy)
    shape, weight = matrix.geometry(convolution), convolution.weight.detach()
    bias = None if convolution.bias is None else convolution.bias.detach()
    torch.testing.assert_close(matrix.forward(x.detach(), weight, bias, shape), y.detach())
    torch.testing.assert_close(matrix.weight_gradient(dy, x.detach(), weight, shape), dw)
    # Overlaps are summed in float32.
    torch.testing.assert_close(matrix.input_gradient(dy, weight, x.shape, shape), dx, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("channels", "out_channels", "rows"), [(16, 8, 1), (32, 24, 37), (16, 12, 5), (5, 8, 5)])
def test_the_product_towards_float32_weights(channels: int, out_channels: int, rows: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(channels, out_channels, 3, padding=1).to(memory_format=torch.channels_last)
    x, dy = torch.randn(1, channels, rows, 1), torch.randn(1, out_channels, rows, 1)
    found = matrix.weight_gradient(dy, x, convolution.weight.detach(), matrix.geometry(convolution))
    (expected,) = torch.autograd.grad(convolution(x), (convolution.weight,), dy)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
