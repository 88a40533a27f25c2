"""A model whose trainable parameters are views of one vector, and their gradients views of a second."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class FlatModel:
    """module: the network, in channels-last layout, always in ``eval``-safe form (no batch statistics).

    parameters: float32 [P], contiguous; writing to it changes the module.
    gradients: float32 [P]; ``backward`` accumulates into it, so zero it first.
    """

    module: nn.Module
    parameters: torch.Tensor
    gradients: torch.Tensor

    @property
    def device(self) -> torch.device:
        return self.parameters.device

    def frozen_tensors(self) -> dict[str, torch.Tensor]:
        """Everything the module needs beside ``parameters``: buffers and untrained parameters, by name."""
        trained = {name for name, p in self.module.named_parameters() if p.requires_grad}
        return {name: t for name, t in self.module.state_dict().items() if name not in trained}


def flatten(module: nn.Module, device: torch.device) -> FlatModel:
    """Moves ``module`` to ``device`` and its trainable parameters into one vector, in their order of registration.

    Four-dimensional weights are laid out channels-last inside the vector.
    """
    module = module.to(device)
    trainable = [p for p in module.parameters() if p.requires_grad]
    total = sum(p.numel() for p in trainable)
    parameters = torch.empty(total, dtype=torch.float32, device=device)
    gradients = torch.zeros(total, dtype=torch.float32, device=device)
    start = 0
    for parameter in trainable:
        stop = start + parameter.numel()
        view = _view(parameters[start:stop], parameter.shape)
        view.copy_(parameter.detach())
        parameter.data = view
        parameter.grad = _view(gradients[start:stop], parameter.shape)
        start = stop
    return FlatModel(module, parameters, gradients)


def _view(segment: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if len(shape) == 4:
        out_channels, in_channels, height, width = shape
        return segment.view(out_channels, height, width, in_channels).permute(0, 3, 1, 2)
    return segment.view(shape)
