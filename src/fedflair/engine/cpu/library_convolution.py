"""Convolutions as torch's library does them, asked in the way in which it is fast.

Two questions have a slow answer: in float32, on one thread and for fewer than 16 images, convolutions of one pixel go
another way, over contiguous copies; and the gradient of the inputs of strided convolutions by groups goes through a
reference loop. Both are asked as another convolution with the same result.
"""

from __future__ import annotations

import torch
from torch.nn.functional import conv2d

from fedflair.engine.cpu.matrix_convolution import Geometry

_ONE = (1, 1)


def forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: Geometry) -> torch.Tensor:
    """As ``conv2d``: channels-last [n, O, H', W'] from channels-last x and weight."""
    return conv2d(x, weight, bias, shape.stride, shape.padding, _dilation(shape), shape.groups)


def backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, shape: Geometry, wanted: tuple[bool, bool, bool]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of the input, the weight and the bias, as far as ``wanted``."""
    apart = wanted[0] and shape.groups > 1 and shape.stride != _ONE
    dx, dw, db = _backward(dy, x, weight, shape, (wanted[0] and not apart, *wanted[1:]))
    if apart:
        spread, plain = _spread(dy, x, shape)
        dx = _backward(spread, x, weight, plain, (True, False, False))[0]
    return dx, dw, db


def _backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, shape: Geometry, wanted: tuple[bool, bool, bool]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    if not any(wanted):
        return None, None, None
    sizes = [dy.shape[1]] if wanted[2] else None
    found: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]
    found = torch.ops.aten.convolution_backward(
        dy, x, weight, sizes, shape.stride, shape.padding, _dilation(shape), False, [0, 0], shape.groups, list(wanted)
    )
    return found


def _spread(dy: torch.Tensor, x: torch.Tensor, shape: Geometry) -> tuple[torch.Tensor, Geometry]:
    """The gradient of the outputs that the convolution would have without strides, and that convolution."""
    plain = Geometry(shape.kernel, _ONE, shape.padding, shape.dilation, shape.groups)
    size = (*dy.shape[:2], plain.output_side(x.shape[2], 0), plain.output_side(x.shape[3], 1))
    spread = torch.empty(size, dtype=dy.dtype, memory_format=torch.channels_last).zero_()
    spread[:, :, :: shape.stride[0], :: shape.stride[1]] = dy
    return spread, plain


def _dilation(shape: Geometry) -> tuple[int, int]:
    """Of one pixel, which is the same however far the next one is."""
    return (2, 2) if shape.kernel == _ONE else shape.dilation
