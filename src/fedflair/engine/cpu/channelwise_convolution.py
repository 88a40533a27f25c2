"""Convolutions whose outputs each see one channel (depthwise): the gradient of their weights by our own kernel.

The library has a fast one for 3 x 3 weights alone; for others it takes a hundred times as long as forward.
"""

from __future__ import annotations

import torch

from fedflair.engine.cpu.kernels import library
from fedflair.engine.cpu.matrix_convolution import Geometry

_LANES = 16


def fits(weight: torch.Tensor, shape: Geometry) -> bool:
    """Whether the kernel can do this convolution: weight [C, 1, kh, kw]."""
    channels, per_group = weight.shape[:2]
    alone = per_group == 1 and shape.groups == channels and channels % _LANES == 0 and shape.dilation == (1, 1)
    return alone and library() is not None


def weight_gradient(dy: torch.Tensor, x: torch.Tensor, out: torch.Tensor, shape: Geometry) -> torch.Tensor:
    """Writes the gradient of the weight to ``out`` and returns it: float32, channels-last [C, 1, kh, kw]."""
    kind = "bf16" if x.dtype == torch.bfloat16 else "float"
    images, channels, height, width = x.shape
    getattr(library(), f"channelwise_weight_gradient_{kind}")(
        *(t.data_ptr() for t in (x, dy, out)),
        *(images, height, width, channels, *dy.shape[2:]),
        *(*shape.kernel, *shape.stride, *shape.padding),
    )
    return out
