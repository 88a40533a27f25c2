"""What a client does to its update to send fewer bytes.

Each function works in place on the update, float32 [P], and leaves what the server reads from the bytes that were sent.
It comes after the client's own privacy mechanism (so it only sees what may be seen) and before central clipping (so the
bound holds for what is summed). A vector that is not finite stays so, for the mechanism to reject.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fedflair.config.groups.cohort import CohortOptions

BLOCK = 2048


@dataclass(frozen=True)
class Compression:
    """apply: (update float32 [P], options, randomness) -> None, in place. num_bytes: (P, options) -> bytes sent."""

    apply: Callable[[torch.Tensor, CohortOptions, np.random.Generator], None]
    num_bytes: Callable[[int, CohortOptions], int]


def keep(update: torch.Tensor, options: CohortOptions, generator: np.random.Generator) -> None:
    """Nothing is left out: four bytes an entry."""


def top_k(update: torch.Tensor, options: CohortOptions, generator: np.random.Generator) -> None:
    """Keeps the ``top_k_fraction`` largest entries by magnitude (at least one), each sent with its index."""
    largest = torch.topk(update.abs(), num_kept(options, update.numel()), sorted=False).indices
    sent = update[largest]
    update.zero_()
    update[largest] = sent


def quantize_8bit(update: torch.Tensor, options: CohortOptions, generator: np.random.Generator) -> None:
    """Rounds to 255 levels up or down at random so that the mean is exact (Alistarh et al., 2017).

    Each block of ``BLOCK`` entries has its own scale, the largest magnitude in it over 127.
    """
    if not bool(torch.isfinite(update).all()):
        return
    noise = torch.from_numpy(generator.random(update.numel(), dtype=np.float32)).to(update.device)
    whole = update.numel() // BLOCK * BLOCK
    for part, draws in ((update[:whole], noise[:whole]), (update[whole:], noise[whole:])):
        if part.numel():
            blocks = part.view(-1, min(BLOCK, part.numel()))
            scales = (blocks.abs().amax(dim=1, keepdim=True) / 127).clamp_min(torch.finfo(torch.float32).tiny)
            blocks.div_(scales).add_(draws.view_as(blocks)).floor_().clamp_(max=127).mul_(scales)


def num_kept(options: CohortOptions, num_parameters: int) -> int:
    """Entries that ``top_k`` keeps."""
    return max(1, math.ceil(options.top_k_fraction * num_parameters))


COMPRESSIONS: dict[str, Compression] = {
    "none": Compression(keep, lambda num_parameters, options: 4 * num_parameters),
    "top_k": Compression(top_k, lambda num_parameters, options: 8 * num_kept(options, num_parameters)),
    "quantize_8bit": Compression(
        quantize_8bit, lambda num_parameters, options: num_parameters + 4 * -(-num_parameters // BLOCK)
    ),
}
