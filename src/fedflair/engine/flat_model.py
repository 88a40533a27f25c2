"""A model whose trainable parameters are views of one vector, and their gradients views of a second."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from fedflair.data.images.preprocessing import Preprocessing
from fedflair.engine.cpu.choice import Precision, arithmetic
from fedflair.engine.cpu.fast_layers import DirectConv2d
from fedflair.engine.cpu.fused import fused
from fedflair.engine.cpu.kernels import current
from fedflair.engine.cpu.linear import DirectLinear
from fedflair.engine.gpu.device_form import DeviceForm, device_form
from fedflair.engine.vector import descend, load
from fedflair.errors import DataError
from fedflair.models.preprocessing import preprocessing_of


@dataclass(frozen=True)
class FastForm:
    """The same network in fewer passes over memory; see ``fused.py``.

    rounded: bfloat16 [P], the parameters that its convolutions read where they run in bfloat16.
    summed: the gradients that ``backward`` adds to; all others are replaced by it.
    """

    network: nn.Module
    rounded: torch.Tensor | None
    summed: list[torch.Tensor]


@dataclass(frozen=True)
class FlatModel:
    """module: the network, in channels-last layout, always in ``eval``-safe form (no batch statistics).

    parameters: float32 [P], contiguous; changed by ``load`` and ``descend`` only, where ``logits`` is used.
    gradients: float32 [P]; views of it are the module's gradients, so ``backward`` of the module adds to it.
    precision: of the arithmetic in ``logits``; parameters and gradients are float32.
    fast: None where the plain module is what runs: on a GPU, without a C compiler, or with an unusual network.
    spares: models of idle workers, which may take over parts of a batch; None where there are none.
    on_device: what ``device_step.py`` needs; None on a CPU, where local training takes the host's way (``client.py``).
    """

    module: nn.Module
    parameters: torch.Tensor
    gradients: torch.Tensor
    precision: Precision = "fp32"
    fast: FastForm | None = None
    spares: Spares | None = None
    on_device: DeviceForm | None = None

    @property
    def device(self) -> torch.device:
        return self.parameters.device

    @property
    def preprocessing(self) -> Preprocessing:
        """How the network wants its inputs."""
        return preprocessing_of(self.module)

    def load(self, parameters: torch.Tensor) -> None:
        """Sets the parameters: float32 [P]."""
        load(self.parameters, parameters, self.fast.rounded if self.fast else None)

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """The network's output in ``precision``: float32 [n, L]. To be differentiated once at most."""
        network = self.fast.network if self.fast else self.module
        # Each weight is used once, so that a cache of rounded ones, which threads share, would only be in the way.
        cached = self.on_device is None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=cached):
            outputs: torch.Tensor = network(inputs)
        return outputs.float()

    def clear_gradients(self) -> None:
        """Makes ``gradients`` ready for one ``backward`` of ``logits``, after which it is that one's gradient."""
        if self.fast is None:
            self.gradients.zero_()
        else:
            torch._foreach_zero_(self.fast.summed)

    def descend(self, rate: torch.Tensor) -> None:
        """``parameters -= rate * gradients``; rate: float32 []."""
        descend(self.parameters, self.gradients, rate, self.fast.rounded if self.fast else None)


@dataclass(frozen=True)
class Spare:
    """A model of an idle worker, lent to one that is busy.

    model: a scratch model for the borrower alone, until it calls ``give_back``.
    start: ``(function, *arguments)`` -> the future of ``function(model, *arguments)``, computed on a core of its own.
    give_back: waits for what was started.
    """

    model: FlatModel
    start: Callable[..., Future[Any]]
    give_back: Callable[[], None]


class Spares(Protocol):
    """Who lends."""

    def lend(self) -> Spare | None:
        """A spare model, or None at once where no worker is idle."""


def flatten(
    module: nn.Module, device: torch.device, precision: Precision = "fp32", *, cuda_graphs: bool = True
) -> FlatModel:
    """Moves ``module`` to ``device`` and its trainable parameters into one vector, in their order of registration.

    cuda_graphs: on a GPU, whether local steps are captured once and replayed (``device_step.py``).

    Four-dimensional weights are laid out channels-last inside the vector. On a CPU the model is for the kernels that
    the process computes with (``kernels.current``), and for no others. Not to be called while another thread runs
    a network: tracing, for the fast form, gets hold of every module's call for a moment.
    """
    if device.type == "cpu":
        precision = arithmetic(current(), precision)
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
    fast = _fast_form(module, parameters, precision)
    on_device = device_form(module, device, cuda_graphs=cuda_graphs) if device.type == "cuda" else None
    return FlatModel(module, parameters, gradients, precision, fast, on_device=on_device)


def parameter_vector(module: nn.Module, device: torch.device) -> torch.Tensor:
    """A copy of the trainable parameters as ``flatten`` lays them out: float32 [P]."""
    trainable = [p.detach() for p in module.parameters() if p.requires_grad]
    laid_out = [p.permute(0, 2, 3, 1) if p.ndim == 4 else p for p in trainable]
    return torch.cat([p.reshape(-1) for p in laid_out]).to(device, torch.float32)


@torch.no_grad()
def set_parameters(module: nn.Module, vector: torch.Tensor) -> None:
    """Sets the trainable parameters from ``parameter_vector``'s layout, float32 [P]; they stay the module's own.

    Raises DataError where the network has another number of them.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    sizes = [p.numel() for p in trainable]
    if sum(sizes) != vector.numel():
        raise DataError(
            f"the saved model has {vector.numel():,} trained parameters, and the network {sum(sizes):,}; install the "
            "versions that it was trained with"
        )
    start = 0
    for parameter, size in zip(trainable, sizes):
        parameter.copy_(_view(vector[start : start + size], parameter.shape))
        start += size


def frozen_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Everything the module needs beside its trainable parameters: buffers and untrained parameters, by name."""
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    return {name: t for name, t in module.state_dict().items() if name not in trained}


def _fast_form(module: nn.Module, parameters: torch.Tensor, precision: Precision) -> FastForm | None:
    if parameters.device.type != "cpu":
        return None
    rounded = parameters.bfloat16() if precision == "bf16" else None

    def twin(parameter: torch.Tensor) -> torch.Tensor | None:
        if rounded is None:
            return None
        return rounded.as_strided(parameter.shape, parameter.stride(), parameter.storage_offset())

    network = fused(module, twin)
    if network is None:
        return None
    replaced = {id(layer.convolution.weight) for layer in network.modules() if isinstance(layer, DirectConv2d)}
    replaced |= {id(layer.linear.weight) for layer in network.modules() if isinstance(layer, DirectLinear)}
    summed = [p.grad for p in module.parameters() if p.grad is not None and id(p) not in replaced]
    return FastForm(network, rounded, summed)


def _view(segment: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    if len(shape) == 4:
        out_channels, in_channels, height, width = shape
        return segment.view(out_channels, height, width, in_channels).permute(0, 3, 1, 2)
    return segment.view(shape)
