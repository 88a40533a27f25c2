"""Which linear layers write their gradient straight into the flat vector."""

from __future__ import annotations

import pytest
from torch import nn

from fedflair.engine.cpu.choice import DIRECT_LINEAR
from fedflair.engine.cpu.kernels import current
from fedflair.engine.cpu.linear import can_be_direct


class Own(nn.Linear):
    """A subclass, which may do what it likes."""


@pytest.mark.skipif(current() not in DIRECT_LINEAR, reason="this processor's rule has none")
@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Linear(48, 8), True),
        (nn.Linear(96, 3072), True),
        (nn.Linear(48, 17), False),
        (nn.Linear(47, 8), False),
        (nn.Linear(48, 8).requires_grad_(False), False),
        (Own(48, 8), False),
    ],
)
def test_ordinary_ones_of_whole_panels(layer: nn.Module, expected: bool) -> None:
    assert can_be_direct(layer) == expected
