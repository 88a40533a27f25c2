"""A local step as a GPU should see it: one function over tensors that stay where they are, replayed as a graph.

A batch is padded to a size out of few (``bucket``), so that a graph for each of them will do. A row of the padding
repeats the batch's first example and weighs nothing; since no layer mixes examples, it changes nothing either. Neither
a step nor what prepares it waits for the device: the host runs ahead and decodes the next images meanwhile.

Everything here runs on any device, without graphs where there are none; the tests compare it with ``client.sgd_step``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from fedflair.data.clients.federated import ClientData
from fedflair.data.images.jpeg import SIDE
from fedflair.data.images.on_device import cropped, decode_to, random_crops, upload, whole_crops
from fedflair.engine.flat_model import FlatModel
from fedflair.engine.gpu.device_form import CapturedStep, DeviceForm, StepInputs
from fedflair.engine.vector import clip_factor

Positions = npt.NDArray[np.int64]


def bucket(num_examples: int, batch_size: int) -> int:
    """Rows that ``num_examples`` are padded to: 1, 2, 4, 8, 12, 16, 24, 32, 48, ..., and never more than a batch."""
    size = 1
    while size < num_examples:
        halfway = size + size // 2
        size = halfway if size >= 8 and halfway >= num_examples else 2 * size
    return min(size, batch_size)


class DeviceExamples:
    """A client's examples on the model's device; an image is decoded when it is first used, and kept until the end.

    generator: draws the crops and flips, the same as on the host's way; None takes whole images.
    """

    def __init__(
        self,
        model: FlatModel,
        client: ClientData,
        *,
        image_size: int,
        batch_size: int,
        generator: np.random.Generator | None,
    ) -> None:
        self._model, self._client, self._generator = model, client, generator
        self._image_size, self._batch_size = image_size, batch_size
        self._pixels = torch.empty((client.num_examples, SIDE, SIDE, 3), dtype=torch.uint8, device=model.device)
        self._targets = upload(client.labels.astype(np.float32), model.device)
        self._missing = np.ones(client.num_examples, dtype=bool)

    def gradient(self, batch: Positions, divisor: int) -> torch.Tensor:
        """Sets the model's gradients to those of the sum of the examples' losses over ``divisor``.

        Returns the sum of their losses, float32 []. batch: positions of examples, int64 [at least 1].
        """
        return self._run(batch, divisor, descend=False)

    def plain_steps(self, learning_rate: float, max_grad_norm: float) -> Callable[[Positions], torch.Tensor]:
        """What takes a step of plain SGD on the mean loss of a batch, with the gradient's L2 norm clipped.

        It returns as ``gradient`` does, the losses being those before the step.
        """
        form = _form(self._model)
        form.learning_rate.fill_(learning_rate)
        form.max_grad_norm.fill_(max_grad_norm)
        return lambda batch: self._run(batch, len(batch), descend=True)

    def _run(self, batch: Positions, divisor: int, *, descend: bool) -> torch.Tensor:
        model, form = self._model, _form(self._model)
        self._decode(batch)
        # Masks are drawn for the rows there are, so that padding would change those of later layers.
        num_rows = len(batch) if form.capture is None else bucket(len(batch), self._batch_size)
        key = (num_rows, self._targets.shape[1], self._image_size, descend)
        captured = form.steps.get(key)
        inputs = empty_inputs(num_rows, self._targets) if captured is None else captured.inputs
        self._fill(inputs, batch, divisor)
        if captured is None:
            captured = CapturedStep(inputs, step_function(model, inputs, self._image_size, descend=descend))
            if form.capture is not None:
                form.steps[key] = captured
        captured.run()
        return inputs.loss * divisor

    def _decode(self, batch: Positions) -> None:
        new = batch[self._missing[batch]]
        if len(new):
            pixels = decode_to([self._client.images[k] for k in new], self._model.device)
            self._pixels.index_copy_(0, upload(new, self._model.device), pixels)
            self._missing[new] = False

    def _fill(self, inputs: StepInputs, batch: Positions, divisor: int) -> None:
        positions = np.arange(len(inputs.weights))
        padding = positions >= len(batch)
        positions[padding] = 0
        rows = upload(batch[positions], self._model.device)
        weights = np.where(padding, 0, 1 / divisor).astype(np.float32)
        crops = whole_crops(len(batch)) if self._generator is None else random_crops(len(batch), self._generator)
        crops = crops[positions]
        drawn = upload(np.hstack([crops, weights[:, None]]), self._model.device)
        torch.index_select(self._pixels, 0, rows, out=inputs.pixels)
        torch.index_select(self._targets, 0, rows, out=inputs.targets)
        inputs.crops.copy_(drawn[:, :5])
        inputs.weights.copy_(drawn[:, 5])


def _form(model: FlatModel) -> DeviceForm:
    if model.on_device is None:
        raise ValueError("this model was not made for a device")
    return model.on_device


def empty_inputs(num_rows: int, targets: torch.Tensor) -> StepInputs:
    device = targets.device
    return StepInputs(
        pixels=torch.empty((num_rows, SIDE, SIDE, 3), dtype=torch.uint8, device=device),
        targets=torch.empty((num_rows, targets.shape[1]), device=device),
        crops=torch.empty((num_rows, 5), device=device),
        weights=torch.empty(num_rows, device=device),
        loss=torch.zeros((), device=device),
    )


def step_function(model: FlatModel, inputs: StepInputs, image_size: int, *, descend: bool) -> Callable[[], None]:
    """The gradient of ``inputs``' loss, and where ``descend`` the step along it; captured where the model captures."""
    form = _form(model)

    def run() -> None:
        _gradient(model, form, inputs, image_size)
        if descend:
            model.descend(clip_factor(model.gradients, form.max_grad_norm) * form.learning_rate)

    if form.capture is None:
        return run
    # Capturing begins with real runs, whose steps are taken back.
    before = model.parameters.clone()
    captured = form.capture(run)
    model.load(before)
    return captured


def _gradient(model: FlatModel, form: DeviceForm, inputs: StepInputs, image_size: int) -> None:
    images = cropped(inputs.pixels, inputs.crops, image_size, form.normalisation)
    losses = binary_cross_entropy_with_logits(model.logits(images), inputs.targets, reduction="none").mean(1)
    loss = (losses * inputs.weights).sum()
    gradients = torch.autograd.grad(loss, form.trained, materialize_grads=True)
    torch._foreach_copy_(form.gradients, list(gradients))
    inputs.loss.copy_(loss.detach())
