"""Both tools in float64, without a line of either changed: the process reads float64 wherever they say float32.

Networks are built before, with float32 as the default, so that both precisions begin with the same weights.
"""

from __future__ import annotations

import torch

from fedflair.engine import vector
from fedflair.privacy.mechanisms import additive, clipping


def read_float32_as_float64() -> None:
    """To be called before what it changes is imported elsewhere by name, and with kernels off (FEDFLAIR_KERNELS=0)."""
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]  # what this function is for
    vector.blank = torch.empty_like  # type: ignore[assignment]  # its memory is of 4 bytes an entry
    # What float32 needs to be safe, and what mechanisms round updates to, would be seen in the ninth digit.
    clipping._ROUNDING = 1.0
    clipping.exact_grid = additive.exact_grid = _no_grid  # type: ignore[assignment]  # of updates in float64


def _no_grid(bound: float, cohort_size: int) -> None:
    """In place of the grid that updates are cut to."""
