"""Normalisation, ReLU and max-pooling in one, as ResNet's first layers need it, on the fast CPU path.

What is normalised has the network's most pixels. It is not kept: backward needs only which pixel won, a byte a window.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fedflair.engine.cpu.fast_layers import CHANNELS_LAST, NormFacts, address, kind, norm_facts, statistics
from fedflair.engine.cpu.kernels import library
from fedflair.models.normalization import FrozenBatchNorm2d

SIDE, STRIDE, PADDING = 3, 2, 1


class PooledNorm(nn.Module):
    """``max_pool(relu(norm(x)))`` of windows of 3 x 3, stride 2, padding 1: one pass forward, two back.

    ``forward(x)``: float32 or bfloat16 [n, C, H, W], C a multiple of 16, to [n, C, (H + 1) // 2, (W + 1) // 2].
    takes_over: overwrites ``x`` with its gradient.
    """

    def __init__(self, norm: nn.GroupNorm | FrozenBatchNorm2d, *, takes_over: bool = False) -> None:
        super().__init__()
        self.norm = norm
        self.takes_over = takes_over

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        facts = norm_facts(self.norm, relu=1, takes_over=self.takes_over)
        result: torch.Tensor = _PooledNorm.apply(x, self.norm.weight, self.norm.bias, facts)
        return result


class _PooledNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, facts: NormFacts) -> torch.Tensor:
        x = x.contiguous(memory_format=CHANNELS_LAST)
        mean, rstd = statistics(x, facts)
        images, channels, height, width = x.shape
        shape = (images, channels, (height + 1) // STRIDE, (width + 1) // STRIDE)
        y = torch.empty(shape, dtype=x.dtype, memory_format=CHANNELS_LAST)
        winners = torch.empty(shape, dtype=torch.uint8, memory_format=CHANNELS_LAST)
        getattr(library(), f"normalise_and_pool_{kind(x)}")(
            *(address(t) for t in (x, y, winners, mean, rstd, gamma, beta)),
            *_sizes(x, facts),
        )
        ctx.facts = facts
        ctx.save_for_backward(winners, x, mean, rstd, gamma, beta)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        winners, x, mean, rstd, gamma, beta = ctx.saved_tensors
        facts: NormFacts = ctx.facts
        dy = dy.to(x.dtype).contiguous(memory_format=CHANNELS_LAST)
        dx = x if facts.takes_over else torch.empty_like(x)
        dgamma, dbeta = torch.empty_like(gamma), torch.empty_like(beta)
        getattr(library(), f"normalise_and_pool_backward_{kind(x)}")(
            *(address(t) for t in (dy, winners, x, dx, dgamma, dbeta, mean, rstd, gamma, beta)),
            *_sizes(x, facts),
            facts.groups,
        )
        return dx, dgamma, dbeta, None


def _sizes(x: torch.Tensor, facts: NormFacts) -> tuple[int, int, int, int, int]:
    """images, height, width, channels and rows of statistics, as the kernels want them."""
    images, channels, height, width = x.shape
    return images, height, width, channels, 1 if facts.groups == 0 else images


def is_its_pool(layer: nn.Module) -> bool:
    """Whether this is the pooling that :class:`PooledNorm` does."""
    return isinstance(layer, nn.MaxPool2d) and (
        layer.kernel_size in (SIDE, (SIDE, SIDE))
        and layer.stride in (STRIDE, (STRIDE, STRIDE))
        and layer.padding in (PADDING, (PADDING, PADDING))
        and layer.dilation in (1, (1, 1))
        and not layer.ceil_mode
        and not layer.return_indices
    )
