"""The gradient of the loss over all of a client's examples, at the server's parameters."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fedflair.data.clients.federated import ClientData
from fedflair.engine.device_step import DeviceExamples
from fedflair.engine.flat_model import FlatModel
from fedflair.federated.client import LocalTraining, batches_of
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.models.dropout import seed_dropout


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
    on_host = model.on_device is None or client.features is not None
    gradient = (_host_gradient if on_host else _device_gradient)(model, client, options, generator)
    loss_sum, num_steps = torch.zeros((), device=model.device), 0
    total = torch.zeros_like(model.gradients)
    for start in range(0, client.num_examples, options.batch_size):
        loss_sum += gradient(np.arange(start, min(start + options.batch_size, client.num_examples)))
        total += model.gradients
        num_steps += 1
    return total, LocalMetrics(float(loss_sum), client.num_examples, num_steps)


def _host_gradient(
    model: FlatModel, client: ClientData, options: LocalTraining, generator: np.random.Generator
) -> Callable[[npt.NDArray[np.int64]], torch.Tensor]:
    """Positions of a batch -> its part of the whole gradient in the model's, and the sum of its examples' losses."""
    examples = batches_of(model, client, options, generator)

    def gradient(batch: npt.NDArray[np.int64]) -> torch.Tensor:
        inputs, targets = examples(batch)
        model.clear_gradients()
        loss = binary_cross_entropy_with_logits(model.logits(inputs), targets) * len(batch)
        torch.autograd.backward(loss / client.num_examples)
        return loss.detach()

    return gradient


def _device_gradient(
    model: FlatModel, client: ClientData, options: LocalTraining, generator: np.random.Generator
) -> Callable[[npt.NDArray[np.int64]], torch.Tensor]:
    """As ``_host_gradient``, with the images on the device."""
    examples = DeviceExamples(
        model,
        client,
        image_size=options.image_size or model.preprocessing.size,
        batch_size=options.batch_size,
        generator=generator if options.augmentation == "crop" else None,
    )
    return lambda batch: examples.gradient(batch, client.num_examples)
