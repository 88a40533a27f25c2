"""Linear layers whose weight's gradient goes straight into the flat vector, as a convolution's does.

In float32 they are convolutions of one pixel, and our own product towards the weights: torch's matrix products run at
half the speed on AMD's processors. In bfloat16 they are torch's, on rounded weights that autocast would round anew.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import nn

from fedflair.engine.cpu import library_convolution as by_library
from fedflair.engine.cpu.choice import DIRECT_LINEAR
from fedflair.engine.cpu.kernels import current
from fedflair.engine.cpu.matrix_convolution import Geometry, product_of_rows

_ONE_PIXEL = Geometry((1, 1), (1, 1), (0, 0), (1, 1))
# As product_of_rows in exported.c has it.
_INPUTS, _OUTPUTS = 48, 8


class DirectLinear(nn.Module):
    """As the linear layer; ``rounded`` and the weight's only use as in ``DirectConv2d``."""

    def __init__(self, linear: nn.Linear, rounded: torch.Tensor | None) -> None:
        super().__init__()
        self.linear = linear
        self.rounded = rounded

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.linear.weight
        used = weight.detach() if self.rounded is None else self.rounded
        rows = x.reshape(-1, x.shape[-1])
        y: torch.Tensor = _Linear.apply(rows, weight, used, self.linear.bias)
        return y.reshape(*x.shape[:-1], y.shape[-1])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, used: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        x = x.to(used.dtype).contiguous()
        ctx.save_for_backward(x, used)
        ctx.weight, ctx.has_bias = weight, bias is not None
        bias = None if bias is None else bias.to(used.dtype)
        if used.dtype == torch.bfloat16:
            return torch.mm(x, used.t()) if bias is None else torch.addmm(bias, x, used.t())
        # A tensor of its own, which whatever comes next may write to.
        return _rows(by_library.forward(_pixels(x), _filters(used), bias, _ONE_PIXEL)).detach()

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, used = ctx.saved_tensors
        dy = dy.to(used.dtype).contiguous()
        dx = None
        if ctx.needs_input_grad[0] and used.dtype == torch.bfloat16:
            dx = dy @ used
        elif ctx.needs_input_grad[0]:
            wanted = (True, False, False)
            (image, _, _) = by_library.backward(_pixels(dy), _pixels(x), _filters(used), _ONE_PIXEL, wanted)
            dx = None if image is None else _rows(image)
        ctx.weight.grad.copy_(product_of_rows(dy, x))
        return dx, None, None, dy.sum(0, dtype=torch.float32) if ctx.has_bias else None


def can_be_direct(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether it is an ordinary one, with a weight that trains and is wide enough for it to matter."""
    return (
        type(layer) is nn.Linear
        and current() in DIRECT_LINEAR
        and layer.weight.requires_grad
        and layer.in_features % _INPUTS == 0
        and layer.out_features % _OUTPUTS == 0
    )


def _pixels(rows: torch.Tensor) -> torch.Tensor:
    """[n, C] as one channels-last image [1, C, n, 1]."""
    return rows.view(1, rows.shape[0], 1, rows.shape[1]).permute(0, 3, 1, 2)


def _rows(image: torch.Tensor) -> torch.Tensor:
    """The reverse."""
    return image.permute(0, 2, 3, 1).reshape(-1, image.shape[1])


def _filters(weight: torch.Tensor) -> torch.Tensor:
    """[O, C] as channels-last [O, C, 1, 1]."""
    return weight.view(weight.shape[0], 1, 1, weight.shape[1]).permute(0, 3, 1, 2)
