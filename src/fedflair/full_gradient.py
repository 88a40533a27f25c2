"""The gradient of the loss over all of a client's examples, at the server's parameters."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fedflair.client import LocalTraining
from fedflair.data.federated import ClientData
from fedflair.data.images import decode, train_inputs
from fedflair.metrics import LocalMetrics
from fedflair.models.dropout import seed_dropout
from fedflair.models.flat import FlatModel


def full_gradient(
    model: FlatModel,
    server_parameters: torch.Tensor,
    client: ClientData,
    options: LocalTraining,
    generator: np.random.Generator,
) -> tuple[torch.Tensor, LocalMetrics]:
    """(mean gradient over the client's examples float32 [P], metrics); nothing is stepped or clipped.

    The examples go through the model ``batch_size`` at a time, in their order, each cropped and flipped afresh.
    generator: the only source of randomness.
    """
    model.load(server_parameters)
    model.module.train()
    seed_dropout(model.module, torch.Generator().manual_seed(int(generator.integers(2**62))))
    labels = torch.from_numpy(client.labels).float()
    loss_sum, num_steps = torch.zeros((), device=model.device), 0
    total = torch.zeros_like(model.gradients)
    for start in range(0, client.num_examples, options.batch_size):
        pixels = decode(client.images[start : start + options.batch_size])
        inputs = train_inputs(pixels, options.image_size, generator).to(model.device)
        targets = labels[start : start + options.batch_size].to(model.device)
        model.clear_gradients()
        loss = binary_cross_entropy_with_logits(model.logits(inputs), targets) * len(pixels)
        (loss / client.num_examples).backward()  # type: ignore[no-untyped-call]
        total += model.gradients
        loss_sum += loss.detach()
        num_steps += 1
    return total, LocalMetrics(float(loss_sum), client.num_examples, num_steps)
