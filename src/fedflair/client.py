"""What happens on one client: local SGD from the server's parameters, and the update that is sent back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fedflair.data.federated import ClientData
from fedflair.data.images import decode, train_inputs
from fedflair.metrics import LocalMetrics
from fedflair.models.dropout import seed_dropout
from fedflair.models.flat import FlatModel

GradientAdjustment = Callable[[torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class LocalTraining:
    """Hyper-parameters of local SGD; see the options of the same names in ``config.py``."""

    learning_rate: float
    num_epochs: int
    batch_size: int
    max_grad_norm: float
    image_size: int


@dataclass(frozen=True)
class ClientUpdate:
    """delta: float32 [P], trained parameters minus the server's. weight: its weight in the mean.

    num_examples: images trained on. metrics: of local training, measured before each step.
    extra: further vectors by name that the server sums over the cohort, without weights.
    client_state: what the algorithm keeps of this client until its next round; None leaves what there is.
    """

    delta: torch.Tensor
    weight: float
    num_examples: int
    metrics: LocalMetrics
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)
    client_state: Mapping[str, torch.Tensor] | None = None


def train_locally(
    model: FlatModel,
    server_parameters: torch.Tensor,
    client: ClientData,
    options: LocalTraining,
    generator: np.random.Generator,
    adjust_gradient: GradientAdjustment | None = None,
) -> tuple[torch.Tensor, LocalMetrics]:
    """Runs local SGD on ``model``, whose parameters are overwritten, and returns (delta float32 [P], metrics).

    adjust_gradient: called with (parameters, gradients) before clipping, to change the gradients in place.
    generator: the only source of randomness (order of examples, crops, flips, dropout).
    """
    model.parameters.copy_(server_parameters)
    model.module.train()
    seed_dropout(model.module, torch.Generator().manual_seed(int(generator.integers(2**62))))
    pixels = decode(client.images)
    labels = torch.from_numpy(client.labels).float()
    loss_sum, num_steps = torch.zeros((), device=model.device), 0
    for _ in range(options.num_epochs):
        order = generator.permutation(client.num_examples)
        for start in range(0, len(order), options.batch_size):
            batch = order[start : start + options.batch_size]
            inputs = train_inputs([pixels[i] for i in batch], options.image_size, generator).to(model.device)
            targets = labels[torch.from_numpy(batch)].to(model.device)
            loss = sgd_step(model, inputs, targets, options, adjust_gradient)
            loss_sum += loss * len(batch)
            num_steps += 1
    delta = model.parameters - server_parameters
    return delta, LocalMetrics(float(loss_sum), client.num_examples * options.num_epochs, num_steps)


def sgd_step(
    model: FlatModel,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    options: LocalTraining,
    adjust_gradient: GradientAdjustment | None = None,
) -> torch.Tensor:
    """One step of SGD with the gradient's L2 norm clipped; returns the loss before the step, float32 []."""
    model.gradients.zero_()
    loss = binary_cross_entropy_with_logits(model.module(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        if adjust_gradient is not None:
            adjust_gradient(model.parameters, model.gradients)
        norm = torch.linalg.vector_norm(model.gradients)
        scale = (options.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        model.parameters.addcmul_(model.gradients, scale, value=-options.learning_rate)
    return loss.detach()
