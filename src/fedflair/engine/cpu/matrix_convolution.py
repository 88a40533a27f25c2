"""A convolution as matrix products, for batches so small that a convolution's own work on its weights outweighs it.

Convolution kernels rearrange the weights first, and their gradient afterwards, which costs as much for one image as for
many. A matrix product over unfolded patches leaves the weights where they are, laid out [O, kh, kw, C].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import pad

from fedflair.engine.cpu.kernels import library


@dataclass(frozen=True)
class Geometry:
    """What a convolution does to an image, beside its weights; each pair is (vertical, horizontal)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int = 1

    def output_side(self, side: int, axis: int) -> int:
        reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (side + 2 * self.padding[axis] - reach) // self.stride[axis] + 1


def geometry(convolution: nn.Conv2d) -> Geometry:
    """Of a convolution with numeric padding."""
    vertical, horizontal = (int(p) for p in convolution.padding)
    kernel, stride, dilation = convolution.kernel_size, convolution.stride, convolution.dilation
    return Geometry(
        (kernel[0], kernel[1]),
        (stride[0], stride[1]),
        (vertical, horizontal),
        (dilation[0], dilation[1]),
        convolution.groups,
    )


def patches(x: torch.Tensor, shape: Geometry) -> torch.Tensor:
    """The input under each output pixel: [n * H' * W', kh * kw * C] from channels-last [n, C, H, W]."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = shape.kernel, shape.stride, shape.padding, shape.dilation
    n, channels, height, width = x.shape
    rows, columns = shape.output_side(height, 0), shape.output_side(width, 1)
    padded = pad(x.permute(0, 2, 3, 1), (0, 0, pw, pw, ph, ph)).contiguous()
    image, line, pixel, _ = padded.stride()
    unfolded = padded.as_strided(
        (n, rows, columns, kh, kw, channels), (image, sh * line, sw * pixel, dh * line, dw * pixel, 1)
    )
    return unfolded.reshape(n * rows * columns, kh * kw * channels)


def forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, shape: Geometry) -> torch.Tensor:
    """As ``conv2d``: channels-last [n, O, H', W'] from channels-last x and weight."""
    size = (x.shape[0], weight.shape[0], shape.output_side(x.shape[2], 0), shape.output_side(x.shape[3], 1))
    # Not a view of something else: whatever comes next may write to it.
    y = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    rows = y.permute(0, 2, 3, 1).view(-1, size[1])
    torch.mm(patches(x, shape), _as_matrix(weight).t(), out=rows)
    if bias is not None:
        rows += bias
    return y


def input_gradient(dy: torch.Tensor, weight: torch.Tensor, size: torch.Size, shape: Geometry) -> torch.Tensor:
    """Gradient of the input [n, C, H, W] = ``size``, channels-last; overlapping patches are summed in float32."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = shape.kernel, shape.stride, shape.padding, shape.dilation
    n, channels, height, width = size
    rows, columns = dy.shape[2], dy.shape[3]
    parts = (_rows(dy) @ _as_matrix(weight)).view(n, rows, columns, kh, kw, channels)
    padded = torch.zeros(n, height + 2 * ph, width + 2 * pw, channels)
    for i in range(kh):
        for j in range(kw):
            top, left = i * dh, j * dw
            under = padded[:, top : top + (rows - 1) * sh + 1 : sh, left : left + (columns - 1) * sw + 1 : sw]
            under += parts[:, :, :, i, j]
    inner = padded[:, ph : ph + height, pw : pw + width].to(dy.dtype)
    return inner.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def weight_gradient(dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, shape: Geometry) -> torch.Tensor:
    """Gradient of the weight, channels-last [O, C, kh, kw]."""
    out_channels, channels, kh, kw = weight.shape
    flat = product_of_rows(_rows(dy), patches(x, shape))
    return flat.view(out_channels, kh, kw, channels).permute(0, 3, 1, 2)


def product_of_rows(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left.t() @ right``. Not by MKL in float32, whose products run at half speed on AMD's processors."""
    kernels, (rows, channels), width = library(), left.shape, right.shape[1]
    if kernels is None or left.dtype != torch.float32 or channels % 8 or width % 48:
        return left.t() @ right
    left, right, product = left.contiguous(), right.contiguous(), torch.empty(channels, width)
    panel, tiles = torch.empty(rows, 48), torch.empty(rows, channels)
    kernels.product_of_rows(*(t.data_ptr() for t in (left, right, product, panel, tiles)), rows, channels, width)
    return product


def _rows(dy: torch.Tensor) -> torch.Tensor:
    """[n * H' * W', O] of channels-last [n, O, H', W']."""
    return dy.permute(0, 2, 3, 1).reshape(-1, dy.shape[1])


def _as_matrix(weight: torch.Tensor) -> torch.Tensor:
    """[O, kh * kw * C] of channels-last [O, C, kh, kw]."""
    return weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1)
