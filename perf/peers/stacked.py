"""A local step of K clients at once: their networks stacked, under ``torch.func.vmap``.

Convolutions of K networks on K batches become grouped convolutions, which libraries are often slow at: hence measured.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import binary_cross_entropy_with_logits

from fedflair.models.multi_label_cnn import build

NUM_LABELS = 17
REPEATS = 10


def stacked_steps(device: str, clients: tuple[int, ...] = (1, 2, 4, 8, 16)) -> list[dict[str, Any]]:
    """Gradients of 1, 4 and 16 images a client for each number of clients, in bf16: ms an image-step, one line each."""
    rows = []
    for num_images in (1, 4, 16):
        for count in clients:
            seconds = _seconds(count, num_images, torch.device(device))
            each = seconds / (count * num_images) * 1e3
            words = f"stacked: {count:>2} clients of {num_images:>2} images: {each:.3f} ms an image-step"
            rows.append({"clients": count, "images": num_images, "ms": each, "words": words})
    return rows


def _seconds(count: int, num_images: int, device: torch.device) -> float:
    networks = [
        build("resnet18", NUM_LABELS, pretrained=False, weights=None, seed=k).to(device).eval() for k in range(count)
    ]
    parameters, buffers = stack_module_state(networks)
    network: nn.Module = networks[0]
    images = torch.randn(count, num_images, 3, 224, 224, device=device)
    targets = torch.zeros(count, num_images, NUM_LABELS, device=device)

    def loss(
        values: dict[str, torch.Tensor], fixed: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        logits = functional_call(network, (values, fixed), (x,))
        return binary_cross_entropy_with_logits(logits.float(), y)

    step = vmap(grad(loss))
    took = []
    with torch.autocast(device.type, dtype=torch.bfloat16):
        for repeat in range(REPEATS + 2):
            started = time.perf_counter()
            step(parameters, buffers, images, targets)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= 2:
                took.append(time.perf_counter() - started)
    return statistics.median(took)
