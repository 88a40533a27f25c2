"""Evaluation: logits of a whole partition, streamed from the store, and the metrics of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedflair.backends import Backend
from fedflair.data.images import decode, eval_inputs
from fedflair.data.store import Partition
from fedflair.metrics import multi_label_metrics
from fedflair.models.flat import FlatModel

CPU_BATCH_SIZE = 32


@dataclass(frozen=True)
class Scores:
    """logits: float32 [n, L]; targets: 0/1 uint8 [n, L]."""

    logits: npt.NDArray[np.float32]
    targets: npt.NDArray[np.uint8]

    def metrics(self) -> dict[str, float]:
        return multi_label_metrics(self.logits, self.targets)


def score_partition(
    parameters: torch.Tensor,
    partition: Partition,
    *,
    backend: Backend,
    num_labels: int,
    fine: bool,
    image_size: int,
    batch_size: int,
) -> Scores:
    """Scores every image of a partition with ``parameters`` (float32 [P]).

    Pixels and activations are held for one batch a worker; only logits and targets grow with the partition. On a CPU
    batches are cut to 32 images, which is as fast and keeps the activations in tens of megabytes.
    """
    logits = np.empty((partition.num_images, num_labels), dtype=np.float32)

    def score(model: FlatModel, batch: range) -> None:
        model.parameters.copy_(parameters)
        model.module.eval()
        pixels = decode([partition.encoded(i) for i in batch])
        with torch.inference_mode():
            outputs = model.module(eval_inputs(pixels, image_size).to(model.device))
        logits[batch.start : batch.stop] = outputs.float().cpu().numpy()

    size = min(batch_size, CPU_BATCH_SIZE) if parameters.device.type == "cpu" else batch_size
    starts = range(0, partition.num_images, size)
    batches = [range(start, min(start + size, partition.num_images)) for start in starts]
    for _ in backend.map_unordered(score, batches):
        pass
    return Scores(logits, partition.multi_hot(range(partition.num_images), num_labels, fine=fine))
