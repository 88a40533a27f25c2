"""3 x 3 convolutions with fewer multiplications; see ``kernels/winograd_tiles.h`` for how.

Results differ from a direct convolution's by rounding only: in float32 hardly more than another order of summation
would make them, in bfloat16 (summed in float32) by two to three times what rounding a direct one's factors does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from fedflair.engine.cpu.kernels import library
from fedflair.engine.cpu.matrix_convolution import Geometry

_PLAIN = Geometry((3, 3), (1, 1), (1, 1), (1, 1))
_PANEL = 32


@dataclass
class Scratch:
    """What the convolutions of one model write into and nobody reads later. For one thread at a time.

    Kept, because up to 20 MB that are freed and asked for again in between activations leave gaps among them.
    """

    memory: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def floats(self, count: int) -> torch.Tensor:
        """A float32 vector at least that long, which the next call overwrites."""
        if len(self.memory) < count:
            # The old one is gone before the new one is there.
            self.memory = torch.empty(0)
            self.memory = torch.empty(count)
        return self.memory


def fits(weight: torch.Tensor, shape: Geometry) -> bool:
    """Whether the kernels can do this convolution: weight [O, C, kh, kw]."""
    channels = weight.shape[:2]
    plain = shape == _PLAIN and all(count % _PANEL == 0 for count in channels)
    return plain and hasattr(library(), f"winograd_convolution_{_kind(weight)}")


def num_tiles(x: torch.Tensor) -> int:
    """Tiles of 2 x 2 outputs of channels-last x [n, C, H, W]."""
    images, _, height, width = x.shape
    return images * ((height + 1) // 2) * ((width + 1) // 2)


def forward(x: torch.Tensor, weight: torch.Tensor, scratch: Scratch) -> torch.Tensor:
    """As ``conv2d``: channels-last [n, O, H, W] from channels-last x [n, C, H, W] and weight [O, C, 3, 3]."""
    return _convolution(x, weight, scratch, turned=False)


def input_gradient(dy: torch.Tensor, weight: torch.Tensor, scratch: Scratch) -> torch.Tensor:
    """Gradient of the input, channels-last [n, C, H, W], from that of the output."""
    return _convolution(dy, weight, scratch, turned=True)


def weight_gradient(dy: torch.Tensor, x: torch.Tensor, out: torch.Tensor, scratch: Scratch) -> torch.Tensor:
    """Writes the gradient of the weight to ``out`` and returns it: float32, channels-last [O, C, 3, 3]."""
    (images, inputs, height, width), outputs = x.shape, dy.shape[1]
    sizes = (images, height, width, inputs, outputs)
    memory = scratch.floats(_kernels().winograd_scratch(*sizes))
    _function("weight_gradient", x)(*(t.data_ptr() for t in (x, dy, out, memory)), *sizes)
    return out


def _convolution(x: torch.Tensor, weight: torch.Tensor, scratch: Scratch, *, turned: bool) -> torch.Tensor:
    images, inputs, height, width = x.shape
    outputs = weight.shape[1 if turned else 0]
    sizes = (images, height, width, inputs, outputs)
    memory = scratch.floats(_kernels().winograd_scratch(*sizes))
    y = torch.empty(images, outputs, height, width, dtype=x.dtype, memory_format=torch.channels_last)
    _function("convolution", x)(*(t.data_ptr() for t in (x, weight, y, memory)), *sizes, int(turned))
    return y


def _function(name: str, x: torch.Tensor) -> Callable[..., None]:
    function: Callable[..., None] = getattr(_kernels(), f"winograd_{name}_{_kind(x)}")
    return function


def _kind(x: torch.Tensor) -> str:
    return {torch.float32: "float", torch.bfloat16: "bf16"}.get(x.dtype, "none")


def _kernels() -> ctypes.CDLL:
    kernels = library()
    assert kernels is not None, "``fits`` has asked for them"
    return kernels
