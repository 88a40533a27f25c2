"""Evaluation: logits of a whole partition, streamed from the store, and the metrics of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from fedflair.backends.contract import Backend, Computed, Worker, naming
from fedflair.data.images.crops import decode, eval_inputs
from fedflair.data.images.on_device import cropped, decode_to, whole_images
from fedflair.federated.setup import EvaluationSetup, Examples
from fedflair.metrics.multi_label import MultiLabelMetrics, Targets, multi_label_metrics

CPU_BATCH_SIZE = 16
FEATURE_BATCH_SIZE = 8192


@dataclass(frozen=True)
class Scores:
    """logits: float32 [n, L]; targets: of the same n images."""

    logits: npt.NDArray[np.float32]
    targets: Targets

    def measured(self) -> MultiLabelMetrics:
        return multi_label_metrics(self.logits, self.targets)

    def metrics(self) -> dict[str, float]:
        return self.measured().values()


@dataclass(frozen=True)
class Scoring:
    """What every worker gets of an evaluation, once. parameters: float32 [P]. partition: its name in the store."""

    parameters: torch.Tensor
    partition: str


def score_batch(worker: Worker[EvaluationSetup], scoring: Scoring, batch: range) -> npt.NDArray[np.float32]:
    """Logits of the images at the positions ``batch`` of the partition: float32 [len(batch), L]."""
    worker.check_stop()
    with naming(f"scoring images {batch.start} to {batch.stop - 1} of {scoring.partition}"):
        return score_images(worker, scoring.parameters, worker.setup.examples(scoring.partition, batch))


def score_images(worker: Worker[Computed], parameters: torch.Tensor, examples: Examples) -> npt.NDArray[np.float32]:
    """Logits of examples in one batch with ``parameters`` (float32 [P]): float32 [n, L]."""
    model = worker.model
    model.load(parameters)
    model.module.eval()
    size = worker.setup.config.data.image_size or model.preprocessing.size
    with torch.inference_mode():
        if isinstance(examples, np.ndarray):
            inputs = torch.from_numpy(examples).to(model.device)
        elif model.on_device is None:
            inputs = eval_inputs(decode(examples), size, model.preprocessing)
        else:
            crops = whole_images(len(examples), model.device)
            inputs = cropped(decode_to(examples, model.device), crops, size, model.on_device.normalisation)
        outputs = model.logits(inputs)
    logits: npt.NDArray[np.float32] = outputs.cpu().numpy()
    return logits


def batch_size(setup: EvaluationSetup) -> int:
    """Images scored at once. 16 on a CPU, which is as fast and keeps the activations in tens of megabytes."""
    if setup.on_features is not None:
        # Of features, thousands are a millisecond; and a piece of them is whole batches.
        return FEATURE_BATCH_SIZE if setup.on_features.tables else CPU_BATCH_SIZE
    return images_at_once(setup)


def images_at_once(setup: Computed) -> int:
    """The same of images alone, whatever else the set-up has."""
    size = setup.config.evaluation.central_eval_batch_size
    return min(size, CPU_BATCH_SIZE) if setup.device.type == "cpu" else size


def score_partition(parameters: torch.Tensor, partition: str, *, setup: EvaluationSetup, backend: Backend) -> Scores:
    """Scores every image of a partition with ``parameters`` (float32 [P]).

    Pixels and activations are held for one batch a worker; only logits and targets grow with the partition.
    """
    labels, images = setup.labels, setup.store.partitions[partition]
    logits = np.empty((images.num_images, labels.num_labels), dtype=np.float32)
    size = batch_size(setup)
    starts = range(0, images.num_images, size)
    batches = [range(start, min(start + size, images.num_images)) for start in starts]
    for position, outputs in backend.map_unordered(score_batch, Scoring(parameters, partition), batches):
        logits[batches[position].start : batches[position].stop] = outputs
    return Scores(logits, Targets(*labels.sparse_targets(images, range(images.num_images)), labels.num_labels))
