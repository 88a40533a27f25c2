"""The gradient of the loss over one batch, on one model or on several at once.

A client of many images can outlast all others of a round. Its batches are therefore cut into parts of fixed size, whose
gradients are added in a fixed order: idle workers take parts over, and where nobody is idle its own worker does them
one after the other, with the same result bit for bit.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from fedflair.engine.flat_model import FlatModel
from fedflair.engine.vector import copied
from fedflair.models.dropout import draws_noise

# Clients with more images than this are cut into parts of PART_SIZE images; smaller ones are soon done.
SHARED_FROM = 64
PART_SIZE = 8


def num_parts(model: FlatModel, num_examples: int, batch_size: int) -> int:
    """Parts that each batch of a client is cut into; depends on nothing that differs between runs or machines.

    One on a GPU, which a batch keeps busy anyway, and where dropout would have to be drawn in several places at once.
    """
    if model.device.type != "cpu" or num_examples <= SHARED_FROM or draws_noise(model.module):
        return 1
    return max(1, batch_size // PART_SIZE)


def batch_gradient(model: FlatModel, inputs: torch.Tensor, targets: torch.Tensor, parts: int = 1) -> torch.Tensor:
    """Leaves the gradient of the mean loss in ``model.gradients``, and returns the loss: float32 []."""
    if type(model.module) is nn.Linear:
        return _of_linear(model, model.module, inputs, targets)
    pairs = list(zip(inputs.chunk(parts), targets.chunk(parts)))
    if len(pairs) == 1:
        return _part(model, inputs, targets, 1.0)
    shares = [len(part) / len(inputs) for part, _ in pairs]
    lent = [model.spares.lend() if model.spares else None for _ in pairs[1:]]
    futures = [
        None if spare is None else spare.start(_part_elsewhere, model.parameters, *pair, share)
        for spare, pair, share in zip(lent, pairs[1:], shares[1:])
    ]
    try:
        loss = _part(model, *pairs[0], shares[0])
        for spare, future, pair, share in zip(lent, futures, pairs[1:], shares[1:]):
            if spare is None or future is None:
                sum_before = copied(model.gradients)
                loss += _part(model, *pair, share)
                model.gradients.add_(sum_before)
            else:
                loss += future.result()
                model.gradients.add_(spare.model.gradients)
    finally:
        for spare in lent:
            if spare is not None:
                spare.give_back()
    return loss


@torch.no_grad()
def _of_linear(model: FlatModel, layer: nn.Linear, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """In closed form, without a graph: a head on features takes a step in a tenth of a millisecond."""
    logits = linear(inputs, layer.weight, layer.bias)
    loss = binary_cross_entropy_with_logits(logits, targets)
    residual = logits.sigmoid_().sub_(targets).div_(logits.numel())
    torch.mm(residual.t(), inputs, out=layer.weight.grad)
    if layer.bias is not None:
        torch.sum(residual, 0, out=layer.bias.grad)
    return loss


def _part_elsewhere(
    model: FlatModel, parameters: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor, share: float
) -> torch.Tensor:
    model.load(parameters)
    model.module.train()
    return _part(model, inputs, targets, share)


def _part(model: FlatModel, inputs: torch.Tensor, targets: torch.Tensor, share: float) -> torch.Tensor:
    model.clear_gradients()
    loss = binary_cross_entropy_with_logits(model.logits(inputs), targets) * share
    torch.autograd.backward(loss)
    return loss.detach()
