"""What happens on one client: local SGD from the server's parameters, and the update that is sent back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from fedflair.data.clients.federated import ClientData
from fedflair.data.images.crops import decode, eval_inputs, train_inputs
from fedflair.engine.batch_gradient import batch_gradient, num_parts
from fedflair.engine.device_step import DeviceExamples
from fedflair.engine.flat_model import FlatModel
from fedflair.engine.vector import clip_factor, difference
from fedflair.federated.local_metrics import LocalMetrics
from fedflair.models.dropout import seed_dropout

GradientAdjustment = Callable[[torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class LocalTraining:
    """Hyper-parameters of local SGD in one round; see the ``local_*`` options of the same names in ``config.py``.

    image_size: None is the network's own.
    num_steps: steps in a round, over as many passes as they need; None is ``num_epochs`` whole passes.
    reshuffled: each pass has an order of its own, and not one for all of the round (``like: pfl``).
    """

    learning_rate: float
    num_epochs: int
    batch_size: int
    max_grad_norm: float
    image_size: int | None
    num_steps: int | None = None
    momentum: float = 0.0
    weight_decay: float = 0.0
    augmentation: Literal["crop", "none"] = "crop"
    reshuffled: bool = True


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
    model.load(server_parameters)
    model.module.train()
    seed_dropout(model.module, torch.Generator().manual_seed(int(generator.integers(2**62))))
    velocity = torch.zeros_like(model.parameters) if options.momentum else None
    on_host = model.on_device is None or client.features is not None
    step = (_host_steps if on_host else _device_steps)(model, client, options, generator, adjust_gradient, velocity)
    loss_sum, num_examples, num_steps = torch.zeros((), device=model.device), 0, 0
    for batch in local_batches(client.num_examples, options, generator):
        loss_sum += step(batch)
        num_examples += len(batch)
        num_steps += 1
    delta = difference(model.parameters, server_parameters)
    return delta, LocalMetrics(float(loss_sum), num_examples, num_steps)


def _host_steps(
    model: FlatModel,
    client: ClientData,
    options: LocalTraining,
    generator: np.random.Generator,
    adjust_gradient: GradientAdjustment | None,
    velocity: torch.Tensor | None,
) -> Callable[[npt.NDArray[np.int64]], torch.Tensor]:
    """Positions of a batch -> a step taken on it, and the sum of its examples' losses before."""
    examples = batches_of(model, client, options, generator)
    parts = 1 if client.features is not None else num_parts(model, client.num_examples, options.batch_size)

    def step(batch: npt.NDArray[np.int64]) -> torch.Tensor:
        inputs, targets = examples(batch)
        return sgd_step(model, inputs, targets, options, adjust_gradient, velocity, parts) * len(batch)

    return step


def batches_of(
    model: FlatModel, client: ClientData, options: LocalTraining, generator: np.random.Generator
) -> Callable[[npt.NDArray[np.int64]], tuple[torch.Tensor, torch.Tensor]]:
    """Positions of a batch -> (inputs of the model, targets float32 [n, L]) on its device, augmented afresh."""
    labels = torch.from_numpy(client.labels).float()
    if client.features is not None:
        features = torch.from_numpy(client.features)

        def rows_of(batch: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
            rows = torch.from_numpy(batch)
            return features[rows].to(model.device), labels[rows].to(model.device)

        return rows_of
    size = options.image_size or model.preprocessing.size

    def batch_of(batch: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        # Decoded for each use: that is 1 % of a step, and a large client's pixels would be 100 MB.
        pixels = decode([client.images[i] for i in batch])
        if options.augmentation == "crop":
            inputs = train_inputs(pixels, size, generator, model.preprocessing)
        else:
            inputs = eval_inputs(pixels, size, model.preprocessing)
        return inputs.to(model.device), labels[torch.from_numpy(batch)].to(model.device)

    return batch_of


def _device_steps(
    model: FlatModel,
    client: ClientData,
    options: LocalTraining,
    generator: np.random.Generator,
    adjust_gradient: GradientAdjustment | None,
    velocity: torch.Tensor | None,
) -> Callable[[npt.NDArray[np.int64]], torch.Tensor]:
    """As ``_host_steps``, with the images on the device; plain SGD is one graph from crops to parameters."""
    examples = DeviceExamples(
        model,
        client,
        image_size=options.image_size or model.preprocessing.size,
        batch_size=options.batch_size,
        generator=generator if options.augmentation == "crop" else None,
    )
    if adjust_gradient is None and velocity is None and options.weight_decay == 0.0:
        return examples.plain_steps(options.learning_rate, options.max_grad_norm)

    def step(batch: npt.NDArray[np.int64]) -> torch.Tensor:
        loss_sum = examples.gradient(batch, len(batch))
        descend(model, options, adjust_gradient, velocity)
        return loss_sum

    return step


def local_batches(
    num_examples: int, options: LocalTraining, generator: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of the examples of each local step, int64; each pass over the examples is shuffled when it begins."""
    passes = range(options.num_epochs) if options.num_steps is None else itertools.count()
    num_steps = 0
    for number in passes:
        if number == 0 or options.reshuffled:
            order = generator.permutation(num_examples)
        for start in range(0, num_examples, options.batch_size):
            if num_steps == options.num_steps:
                return
            yield order[start : start + options.batch_size]
            num_steps += 1


def sgd_step(
    model: FlatModel,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    options: LocalTraining,
    adjust_gradient: GradientAdjustment | None = None,
    velocity: torch.Tensor | None = None,
    parts: int = 1,
) -> torch.Tensor:
    """One step of SGD with the gradient's L2 norm clipped; returns the loss before the step, float32 [].

    Weight decay and momentum act on the clipped gradient, as ``torch.optim.SGD`` after ``clip_grad_norm_`` has it.
    velocity: float32 [P], zero before the first step and changed in place; None where there is no momentum.
    parts: how many the batch is cut into; see ``batch_gradient.py``.
    """
    loss = batch_gradient(model, inputs, targets, parts)
    descend(model, options, adjust_gradient, velocity)
    return loss


@torch.no_grad()
def descend(
    model: FlatModel,
    options: LocalTraining,
    adjust_gradient: GradientAdjustment | None,
    velocity: torch.Tensor | None,
) -> None:
    """Changes the parameters by what ``sgd_step`` makes of the model's gradients."""
    if adjust_gradient is not None:
        adjust_gradient(model.parameters, model.gradients)
    scale = clip_factor(model.gradients, options.max_grad_norm)
    if velocity is None and options.weight_decay == 0.0:
        model.descend(scale * options.learning_rate)
    else:
        step = model.gradients.mul_(scale).add_(model.parameters, alpha=options.weight_decay)
        if velocity is not None:
            step = velocity.mul_(options.momentum).add_(step)
        model.load(model.parameters.sub_(step, alpha=options.learning_rate))
