"""Dropout and stochastic depth that draw from a generator handed to them, never from global state."""

from __future__ import annotations

import torch
from torch import nn

from fedflair.models.normalization import replace_modules


class SeededDropout(nn.Module):
    """When training, zeroes elements (whole rows for stochastic depth) with probability ``p`` and rescales the rest."""

    generator: torch.Generator | None = None

    def __init__(self, p: float, *, rowwise: bool, batchwise: bool = False) -> None:
        super().__init__()
        self.p, self.rowwise, self.batchwise = p, rowwise, batchwise

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0.0:
            return inputs
        shape = list(inputs.shape)
        if self.rowwise:
            shape = [1 if self.batchwise else shape[0]] + [1] * (inputs.ndim - 1)
        kept = torch.rand(shape, generator=self.generator).to(inputs.device) >= self.p
        return inputs * kept / (1.0 - self.p) if self.p < 1.0 else inputs * 0.0


def seed_dropout(module: nn.Module, generator: torch.Generator) -> None:
    """Makes every dropout in ``module`` draw from ``generator`` (CPU) from now on."""
    for child in module.modules():
        if isinstance(child, SeededDropout):
            child.generator = generator


def draws_noise(module: nn.Module) -> bool:
    """Whether training ``module`` draws from the generator of ``seed_dropout``."""
    return any(isinstance(child, SeededDropout) and child.p > 0.0 for child in module.modules())


def stop_dropout(module: nn.Module) -> None:
    """Makes every dropout in ``module`` pass everything on, in place."""
    for child in module.modules():
        if isinstance(child, SeededDropout):
            child.p = 0.0


def replace_dropout(module: nn.Module) -> None:
    """Swaps ``nn.Dropout`` for its seeded form, in place."""
    replace_modules(module, nn.Dropout, lambda old: SeededDropout(old.p, rowwise=False))


def replace_drop_path(module: nn.Module) -> None:
    """Swaps the stochastic depth of timm and transformers, by their name for it, for its seeded form, in place."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            probability = getattr(child, "drop_prob", None)
            if type(child).__name__.endswith("DropPath") and isinstance(probability, float | int | None):
                setattr(parent, name, SeededDropout(float(probability or 0.0), rowwise=True))


def replace_stochastic_depth(module: nn.Module) -> None:
    """Swaps torchvision's ``StochasticDepth``, which only its own networks have, for its seeded form, in place."""
    from torchvision.ops import StochasticDepth

    replace_modules(
        module, StochasticDepth, lambda old: SeededDropout(old.p, rowwise=True, batchwise=old.mode == "batch")
    )
