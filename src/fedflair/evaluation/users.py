"""Evaluation user by user: of a cohort of val, and of a training cohort before and after it trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from fedflair.backends.contract import Backend, Worker, naming
from fedflair.data.clients.federated import ClientData
from fedflair.data.store.packed import Partition
from fedflair.evaluation.partition import Scoring, batch_size, score_images
from fedflair.federated.client import ClientUpdate
from fedflair.federated.server import Broadcast
from fedflair.federated.setup import EvaluationSetup, Examples
from fedflair.metrics.multi_label import Targets, multi_label_metrics
from fedflair.metrics.per_user import UserAverages, user_metrics
from fedflair.sampling import stream


@dataclass(frozen=True)
class UserScores:
    """user: position in the partition. logits: float32 [n, L]. targets: 0/1 uint8 [n, L]."""

    user: int
    logits: npt.NDArray[np.float32]
    targets: npt.NDArray[np.uint8]


def score_users(worker: Worker[EvaluationSetup], scoring: Scoring, users: list[int]) -> list[UserScores]:
    """Scores of the users at these positions of the partition; images of neighbours in the list share batches."""
    setup = worker.setup
    partition = setup.store.partitions[scoring.partition]
    ranges = [partition.user_slice(user) for user in users]
    # A user's images lie side by side, and so do those of neighbouring users; but users may be left out.
    parts = [setup.examples(scoring.partition, images) for images in ranges]
    with naming(f"scoring users {', '.join(partition.user_ids[user] for user in users)} of {scoring.partition}"):
        logits = score_in_batches(worker, scoring.parameters, _joined(parts))
    ends = np.cumsum([len(images) for images in ranges])
    return [
        UserScores(user, logits[end - len(images) : end], setup.labels.targets(partition, images))
        for user, images, end in zip(users, ranges, ends)
    ]


def _joined(parts: Sequence[Examples]) -> Examples:
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    return np.concatenate(arrays) if arrays else [image for part in parts for image in part]


def user_groups(partition: Partition, users: Iterable[int], num_images: int) -> Iterator[list[int]]:
    """Cuts users into groups, in their order, each closed once it has ``num_images`` images or more."""
    group: list[int] = []
    size = 0
    for user in users:
        group.append(user)
        size += len(partition.user_slice(user))
        if size >= num_images:
            yield group
            group, size = [], 0
    if group:
        yield group


def federated_evaluation(
    parameters: torch.Tensor, partition: str, round_: int, *, setup: EvaluationSetup, backend: Backend
) -> dict[str, float]:
    """Metrics of a fresh cohort of ``val_cohort_size`` users of a partition, drawn for this round.

    By the names of ``USER_METRICS``: the mean over users, each counting alike. ``image_weighted_...``: the same with a
    user counting as often as it has images. ``pooled_...``: the metrics of all the cohort's images together.
    """
    images = setup.store.partitions[partition]
    num_users = min(setup.config.evaluation.val_cohort_size, images.num_users)
    chosen = stream(setup.config.run.seed, "val cohort", round_).choice(images.num_users, size=num_users, replace=False)
    groups = list(user_groups(images, np.sort(chosen).tolist(), batch_size(setup)))
    found: list[list[UserScores]] = [[] for _ in groups]
    for position, scores in backend.map_unordered(score_users, Scoring(parameters, partition), groups):
        found[position] = scores
    cohort = [scores for group in found for scores in group]
    averages = UserAverages()
    for scores in cohort:
        averages += UserAverages.of_user(user_metrics(scores.logits, scores.targets), len(scores.logits))
    targets = Targets.from_dense(np.concatenate([scores.targets for scores in cohort]))
    pooled = multi_label_metrics(np.concatenate([scores.logits for scores in cohort]), targets).values()
    return {
        **averages.means(),
        **{f"image_weighted_{name}": value for name, value in averages.image_weighted_means().items()},
        **{f"pooled_{name}": value for name, value in pooled.items() if name != "num_examples"},
        "num_users": float(averages.num_users),
        "num_images": float(averages.num_images),
    }


def with_local_evaluation(
    worker: Worker[EvaluationSetup], server: Broadcast, client: ClientData, update: ClientUpdate
) -> ClientUpdate:
    """The update with the client's metrics on the images it trained on, before and after; evaluated without crops.

    The model after training is the server's plus the update's delta, as it is before any mechanism or compression.
    """
    metrics = []
    for parameters in (server.parameters, server.parameters + update.delta):
        logits = score_in_batches(worker, parameters, client.images if client.features is None else client.features)
        metrics.append(UserAverages.of_user(user_metrics(logits, client.labels), client.num_examples))
    return replace(update, metrics=replace(update.metrics, before=metrics[0], after=metrics[1]))


def score_in_batches(
    worker: Worker[EvaluationSetup], parameters: torch.Tensor, examples: Examples
) -> npt.NDArray[np.float32]:
    """Logits of any number of examples with ``parameters`` (float32 [P]): float32 [n, L], n >= 1."""
    size, logits = batch_size(worker.setup), []
    for start in range(0, len(examples), size):
        worker.check_stop()
        logits.append(score_images(worker, parameters, examples[start : start + size]))
    return np.concatenate(logits)
