"""Convolution and normalisation as the fast CPU path computes them; see ``fused.py`` for where they are put.

Both work on channels-last activations in float32 or bfloat16. Their parameters stay float32 views of the flat vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn.functional import relu6

from fedflair.engine.cpu import channelwise_convolution as channelwise
from fedflair.engine.cpu import library_convolution as by_library
from fedflair.engine.cpu import matrix_convolution as matrix
from fedflair.engine.cpu import winograd_convolution as winograd
from fedflair.engine.cpu.choice import Direction, Precision, Way, way_by_groups, way_of
from fedflair.engine.cpu.kernels import current, library
from fedflair.engine.cpu.matrix_convolution import Geometry, geometry
from fedflair.engine.cpu.winograd_convolution import Scratch
from fedflair.models.normalization import FrozenBatchNorm2d

# As in exported.c.
LANES, MAX_CHANNELS = 16, 8192
CHANNELS_LAST = torch.channels_last


@dataclass(frozen=True)
class NormFacts:
    """What the kernels must know: groups is 0 for frozen statistics, which are then ``mean`` and ``rstd`` [C].

    relu: 0 for none, 1, or 2 for one that ends at 6.
    takes_over: nothing else reads the layer's input, so that its memory can take the input's gradient.
    """

    groups: int
    eps: float
    relu: int
    takes_over: bool
    mean: torch.Tensor | None = None
    rstd: torch.Tensor | None = None


def norm_facts(norm: nn.GroupNorm | FrozenBatchNorm2d, *, relu: int, takes_over: bool) -> NormFacts:
    if isinstance(norm, nn.GroupNorm):
        return NormFacts(norm.num_groups, norm.eps, relu, takes_over)
    rstd = torch.rsqrt(norm.running_var + norm.eps)
    return NormFacts(0, norm.eps, relu, takes_over, norm.running_mean, rstd)


def statistics(x: torch.Tensor, facts: NormFacts) -> tuple[torch.Tensor, torch.Tensor]:
    """mean and 1 / deviation: float32 [n, C] of GroupNorm, [C] of frozen BatchNorm."""
    if facts.mean is not None and facts.rstd is not None:
        return facts.mean, facts.rstd
    images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    mean, rstd = torch.empty(2, images, channels)
    compute = getattr(library(), f"group_statistics_{kind(x)}")
    compute(address(x), address(mean), address(rstd), images, pixels, channels, facts.groups, facts.eps)
    return mean, rstd


class FusedNorm(nn.Module):
    """GroupNorm or frozen BatchNorm, then optionally an addition, then optionally a ReLU: one pass forward, two back.

    ``forward(x, skip=None)`` is ``relu(norm(x) + skip)``: float32 or bfloat16 [n, C, H, W], C a multiple of 16.
    six: the ReLU ends at 6. takes_over: overwrites ``x`` with its gradient.
    """

    def __init__(
        self, norm: nn.GroupNorm | FrozenBatchNorm2d, *, relu: bool, six: bool = False, takes_over: bool = False
    ) -> None:
        super().__init__()
        self.norm = norm
        self.relu, self.six = relu, six
        self.takes_over = takes_over

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        if skip is not None and skip.shape != x.shape:
            total: torch.Tensor = self.norm(x) + skip
            if self.six:
                return relu6(total)
            return total.relu() if self.relu else total
        facts = norm_facts(self.norm, relu=2 if self.six else int(self.relu), takes_over=self.takes_over)
        result: torch.Tensor = _Norm.apply(x, skip, self.norm.weight, self.norm.bias, facts)
        return result


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        skip: torch.Tensor | None,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        facts: NormFacts,
    ) -> torch.Tensor:
        x = x.contiguous(memory_format=CHANNELS_LAST)
        skip = None if skip is None else skip.to(x.dtype).contiguous(memory_format=CHANNELS_LAST)
        images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        mean, rstd = statistics(x, facts)
        y = torch.empty_like(x)
        rows = 1 if facts.groups == 0 else images
        normalise = getattr(library(), f"normalise_{kind(x)}")
        normalise(
            *(address(t) for t in (x, skip, y, mean, rstd, gamma, beta)),
            images,
            pixels,
            channels,
            rows,
            facts.relu,
        )
        ctx.facts = facts
        ctx.save_for_backward(x, y if facts.relu and skip is not None else None, mean, rstd, gamma, beta)
        ctx.has_skip = skip is not None
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, y, mean, rstd, gamma, beta = ctx.saved_tensors
        facts: NormFacts = ctx.facts
        dy = dy.to(x.dtype).contiguous(memory_format=CHANNELS_LAST)
        images, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
        dx = x if facts.takes_over else torch.empty_like(x)
        dskip = torch.empty_like(x) if ctx.has_skip else None
        dgamma, dbeta = torch.empty_like(gamma), torch.empty_like(beta)
        getattr(library(), f"normalise_backward_{kind(x)}")(
            *(address(t) for t in (dy, y, x, dx, dskip, dgamma, dbeta, mean, rstd, gamma, beta)),
            images,
            pixels,
            channels,
            1 if facts.groups == 0 else images,
            facts.groups,
            facts.relu,
        )
        return dx, dskip, dgamma, dbeta, None


class DirectConv2d(nn.Module):
    """A convolution whose weight gradient goes straight into the flat vector, replacing what was there.

    convolution: its float32 weight is a view of the flat vector, and the weight's ``grad`` of the gradient's.
    rounded: the weight in bfloat16, used in its place where there is one.
    scratch: shared by the convolutions of a network.
    The weight must not have a second use in the network, whose gradient would be lost.
    """

    def __init__(self, convolution: nn.Conv2d, rounded: torch.Tensor | None, scratch: Scratch) -> None:
        super().__init__()
        self.scratch = scratch
        self.convolution = convolution
        self.rounded = rounded
        self.shape = geometry(convolution)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.convolution.weight
        used = weight.detach() if self.rounded is None else self.rounded
        result: torch.Tensor = _Conv.apply(x, weight, used, self.convolution.bias, self.shape, self.scratch)
        return result


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        used: torch.Tensor,
        bias: torch.Tensor | None,
        shape: Geometry,
        scratch: Scratch,
    ) -> torch.Tensor:
        x = x.to(used.dtype).contiguous(memory_format=CHANNELS_LAST)
        ctx.save_for_backward(x, used)
        ctx.weight, ctx.shape, ctx.has_bias, ctx.scratch = weight, shape, bias is not None, scratch
        bias = None if bias is None else bias.to(used.dtype)
        num_rows = x.shape[0] * shape.output_side(x.shape[2], 0) * shape.output_side(x.shape[3], 1)
        way = _way("forward", x, used, shape, num_rows)
        if way == "winograd":
            y = winograd.forward(x, used, scratch)
            return y if bias is None else y.add_(bias.view(-1, 1, 1))
        if way == "product":
            return matrix.forward(x, used, bias, shape)
        return by_library.forward(x, used, bias, shape)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, used = ctx.saved_tensors
        shape: Geometry = ctx.shape
        dy = dy.to(used.dtype).contiguous(memory_format=CHANNELS_LAST)
        num_rows = dy.numel() // dy.shape[1]
        dx = dw = None
        way = _way("input", x, used, shape, num_rows) if ctx.needs_input_grad[0] else "library"
        if way == "winograd":
            dx = winograd.input_gradient(dy, used, ctx.scratch)
        elif way == "product":
            dx = matrix.input_gradient(dy, used, x.shape, shape)
        way = _way("weight", x, used, shape, num_rows)
        if way == "winograd":
            dw = winograd.weight_gradient(dy, x, ctx.weight.grad, ctx.scratch)
        elif way == "channelwise":
            dw = channelwise.weight_gradient(dy, x, ctx.weight.grad, shape)
        elif way == "product":
            dw = ctx.weight.grad.copy_(matrix.weight_gradient(dy, x, used, shape))
        wanted = (ctx.needs_input_grad[0] and dx is None, dw is None, ctx.has_bias)
        found = by_library.backward(dy, x, used, shape, wanted)
        if found[1] is not None:
            ctx.weight.grad.copy_(found[1])
        return found[0] if dx is None else dx, None, None, found[2], None, None


def _way(direction: Direction, x: torch.Tensor, weight: torch.Tensor, shape: Geometry, num_rows: int) -> Way:
    if shape.groups > 1:
        return way_by_groups(direction, shape.kernel, channelwise=channelwise.fits(weight, shape))
    tiles = winograd.num_tiles(x) if winograd.fits(weight, shape) else 0
    precision: Precision = "bf16" if weight.dtype == torch.bfloat16 else "fp32"
    return way_of(current(), precision, direction, tiles=tiles, rows=num_rows, out_channels=weight.shape[0])


def can_fuse(norm: nn.Module) -> TypeGuard[nn.GroupNorm | FrozenBatchNorm2d]:
    """Whether the kernels can do this normalisation."""
    if isinstance(norm, nn.GroupNorm):
        return norm.affine and norm.num_channels % LANES == 0 and norm.num_channels <= MAX_CHANNELS
    if isinstance(norm, FrozenBatchNorm2d):
        return norm.weight.numel() % LANES == 0 and norm.weight.numel() <= MAX_CHANNELS
    return False


def can_be_direct(convolution: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is an ordinary convolution, with a weight that trains: a subclass may adapt its weight first."""
    return (
        type(convolution) is nn.Conv2d
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and convolution.weight.requires_grad
    )


def kind(x: torch.Tensor) -> str:
    return "bf16" if x.dtype == torch.bfloat16 else "float"


def address(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
