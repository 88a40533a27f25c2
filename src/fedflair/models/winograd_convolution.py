"""3 x 3 convolutions in float32 with fewer multiplications; see ``kernels/winograd.h`` for how.

Results differ from a direct convolution's by rounding only, somewhat more than another order of summation would.
"""

from __future__ import annotations

import ctypes

import torch

from fedflair.kernels import library
from fedflair.models.matrix_convolution import Geometry

_PLAIN = Geometry((3, 3), (1, 1), (1, 1), (1, 1))
_PANEL = 32
_LANES = 16
# With fewer tiles of 2 x 2 outputs the weights' own transformation costs more than it saves.
MIN_TILES = 48


def fits(weight: torch.Tensor, shape: Geometry) -> bool:
    """Whether the kernels can do this convolution: weight [O, C, kh, kw]. Towards the weights they are then faster."""
    channels = weight.shape[:2]
    plain = shape == _PLAIN and weight.dtype == torch.float32
    return plain and all(count % _PANEL == 0 for count in channels) and library() is not None


def pays(x: torch.Tensor) -> bool:
    """Whether outputs, and gradients of inputs, are computed faster too: channels-last [n, C, H, W]."""
    images, _, height, width = x.shape
    return images * ((height + 1) // 2) * ((width + 1) // 2) >= MIN_TILES


def forward(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """As ``conv2d``: channels-last [n, O, H, W] from channels-last x [n, C, H, W] and weight [O, C, 3, 3]."""
    return _convolution(x, weight, "winograd_weights", weight.shape[0])


def input_gradient(dy: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Gradient of the input, channels-last [n, C, H, W], from that of the output."""
    return _convolution(dy, weight, "winograd_turned_weights", weight.shape[1])


def weight_gradient(dy: torch.Tensor, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Writes the gradient of the weight to ``out`` and returns it: channels-last [O, C, 3, 3]."""
    (images, inputs, height, width), outputs = x.shape, dy.shape[1]
    sizes = (images, height, width, inputs, outputs)
    points, scratch = _points(outputs, inputs), _scratch(sizes)
    _kernels().winograd_weight_gradient(*(t.data_ptr() for t in (x, dy, out, points, scratch)), *sizes)
    return out


def _convolution(x: torch.Tensor, weight: torch.Tensor, transform: str, outputs: int) -> torch.Tensor:
    images, inputs, height, width = x.shape
    sizes = (images, height, width, inputs, outputs)
    points, scratch = _points(outputs, inputs), _scratch(sizes)
    y = torch.empty(images, outputs, height, width, memory_format=torch.channels_last)
    getattr(_kernels(), transform)(weight.data_ptr(), points.data_ptr(), *weight.shape[:2])
    _kernels().winograd_convolution(*(t.data_ptr() for t in (x, points, y, scratch)), *sizes)
    return y


def _points(outputs: int, inputs: int) -> torch.Tensor:
    return torch.empty(16 * (outputs * inputs + _LANES))


def _scratch(sizes: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(_kernels().winograd_scratch(*sizes))


def _kernels() -> ctypes.CDLL:
    kernels = library()
    assert kernels is not None, "asked for by ``fits``"
    return kernels
