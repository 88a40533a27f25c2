"""What a model keeps on a GPU beside its two vectors, from one client to the next; ``device_step.py`` uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from fedflair.data.images.on_device import Normalisation, normalisation
from fedflair.engine.gpu.cuda_graphs import GraphCapture
from fedflair.models.dropout import draws_noise
from fedflair.models.preprocessing import preprocessing_of

Run = Callable[[], None]
StepKey = tuple[int, int, int, bool]


@dataclass(frozen=True)
class StepInputs:
    """What a captured step reads and writes beside the model: n rows, of which some may be padding.

    pixels: uint8 [n, SIDE, SIDE, 3]. targets: float32 [n, L]. crops: float32 [n, 5], see ``cropped``.
    weights: float32 [n], of each example's loss in the step's. loss: float32 [], the step's, before it.
    """

    pixels: torch.Tensor
    targets: torch.Tensor
    crops: torch.Tensor
    weights: torch.Tensor
    loss: torch.Tensor


@dataclass(frozen=True)
class CapturedStep:
    """run: computes the gradient of ``inputs``' loss, and takes the step where it was captured with one."""

    inputs: StepInputs
    run: Run


@dataclass(frozen=True)
class DeviceForm:
    """trained: the module's trained parameters. gradients: the views of the flat vector that take theirs.

    capture: makes of a function one that does the same again on the same tensors, without its Python; None where each
        step is run as it is written, since it draws masks on the host (dropout) or graphs are not wanted.
    learning_rate, max_grad_norm: float32 [], where captured steps read them.
    steps: what was captured, by number of rows, of labels, image size, and whether the step is taken too.
    """

    trained: list[torch.Tensor]
    gradients: list[torch.Tensor]
    normalisation: Normalisation
    learning_rate: torch.Tensor
    max_grad_norm: torch.Tensor
    capture: Callable[[Run], Run] | None
    steps: dict[StepKey, CapturedStep] = field(default_factory=dict)


def device_form(module: nn.Module, device: torch.device, *, cuda_graphs: bool) -> DeviceForm:
    """Of a module on ``device`` whose trained parameters have views of the flat vector as their gradients."""
    trained = [p for p in module.parameters() if p.requires_grad]
    return DeviceForm(
        trained=list(trained),
        gradients=[p.grad for p in trained if p.grad is not None],
        normalisation=normalisation(device, preprocessing_of(module)),
        learning_rate=torch.zeros((), device=device),
        max_grad_norm=torch.zeros((), device=device),
        capture=GraphCapture() if cuda_graphs and not draws_noise(module) else None,
    )
