"""Personalisation: fine-tune the model on a part of a user's images, score it on the rest, beside the global model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.backends.contract import Worker
from fedflair.data.clients.federated import ClientData
from fedflair.evaluation.partition import Scoring
from fedflair.evaluation.users import UserScores, score_in_batches, score_users
from fedflair.federated.client import LocalTraining, train_locally
from fedflair.federated.setup import EvaluationSetup
from fedflair.metrics.per_user import user_metrics
from fedflair.sampling import stream

FEWEST_IMAGES = 2


@dataclass(frozen=True)
class Personalisation:
    """training: local SGD of ``num_steps`` steps. fraction: share of a user's images to tune on, in (0, 1)."""

    training: LocalTraining
    fraction: float


@dataclass(frozen=True)
class UserEvaluation:
    """What every worker gets of a per-user evaluation, once."""

    scoring: Scoring
    personalisation: Personalisation | None = None


def evaluate_users(
    worker: Worker[EvaluationSetup], evaluation: UserEvaluation, users: list[int]
) -> list[dict[str, Any]]:
    """A row for each of the users at these positions of the partition.

    ``user_id``, ``num_images``, ``num_labels`` (distinct ones the user has) and ``USER_METRICS`` over all of its
    images. With a personalisation, and for users with at least two images: ``num_tune_images``,
    ``num_held_out_images``, and the metrics on the held-out images of the global model (``global``) and of the tuned
    one (``personalised``).
    """
    partition = worker.setup.store.partitions[evaluation.scoring.partition]
    rows = []
    for scores in score_users(worker, evaluation.scoring, users):
        num_images = len(scores.logits)
        row: dict[str, Any] = {
            "user_id": partition.user_ids[scores.user],
            "num_images": num_images,
            "num_labels": int(scores.targets.any(axis=0).sum()),
            **user_metrics(scores.logits, scores.targets),
        }
        if evaluation.personalisation is not None and num_images >= FEWEST_IMAGES:
            row |= _personalised(worker, evaluation.scoring, evaluation.personalisation, scores)
        rows.append(row)
    return rows


def split_images(
    num_images: int, fraction: float, generator: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(positions to tune on, positions held out) of a user's images in random order; neither is empty from 2 on."""
    order = generator.permutation(num_images)
    num_tune = min(max(round(fraction * num_images), 1), num_images - 1)
    return order[:num_tune], order[num_tune:]


def _personalised(
    worker: Worker[EvaluationSetup], scoring: Scoring, personalisation: Personalisation, scores: UserScores
) -> dict[str, Any]:
    setup, training = worker.setup, personalisation.training
    partition = setup.store.partitions[scoring.partition]
    user_id, images = partition.user_ids[scores.user], partition.user_slice(scores.user)
    generator = stream(setup.config.run.seed, "personalise", 0, user_id)
    tune, held_out = split_images(len(images), personalisation.fraction, generator)
    # No more images than the steps can take: a random part of them, since the order is random.
    used = tune[: (training.num_steps or 0) * training.batch_size]
    client = ClientData(user_id, [partition.encoded(images[k]) for k in used], scores.targets[used])
    delta, _ = train_locally(worker.model, scoring.parameters, client, training, generator)
    tuned = score_in_batches(worker, scoring.parameters + delta, [partition.encoded(images[k]) for k in held_out])
    return {
        "num_tune_images": len(tune),
        "num_held_out_images": len(held_out),
        "global": user_metrics(scores.logits[held_out], scores.targets[held_out]),
        "personalised": user_metrics(tuned, scores.targets[held_out]),
    }
