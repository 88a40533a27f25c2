"""Photographs in which a model is surest: right, wrong (a label that is not there), and missed (one that is)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedflair.data.store.packed import Partition
from fedflair.evaluation.partition import Scores

KINDS = ("right", "wrong", "missed")
MOST = 6
# A list in which one frequent label stands alone would say little of the others.
MOST_OF_A_LABEL = 2
_IMAGES_AT_ONCE = 2048

Floats = npt.NDArray[np.float32]


def surest(scores: Scores, names: Sequence[str], partition: Partition) -> dict[str, list[dict[str, Any]]]:
    """By kind, the surest first: at most six photographs each, at most two of a label, none twice.

    ``right``: the label that the model gives the most probability is on the photograph. ``wrong``: the most probable of
    those that are not on it. ``missed``: the least probable of those that are.
    Each is ``image`` (its position in the partition), ``name`` (user and image id), ``label``, ``probability`` (of that
    label) and ``labels`` (those on the photograph).
    """
    found: dict[str, list[dict[str, Any]]] = {}
    ranked = _ranked(scores)
    for kind in KINDS:
        logits, labels = ranked[kind]
        found[kind] = []
        used: Counter[int] = Counter()
        for image in np.argsort(logits if kind == "missed" else -logits, kind="stable").tolist():
            label = int(labels[image])
            if not np.isfinite(logits[image]) or len(found[kind]) == MOST:
                break
            if used[label] < MOST_OF_A_LABEL:
                used[label] += 1
                found[kind].append(_example(scores, names, partition, image, label))
    return found


def _ranked(scores: Scores) -> dict[str, tuple[Floats, npt.NDArray[np.int64]]]:
    """By kind, of each image the logit that counts and its label; infinite where there is none."""
    pieces = list(_pieces(scores))
    return {
        kind: (
            np.concatenate([piece[kind][0] for piece in pieces] or [np.empty(0, np.float32)]),
            np.concatenate([piece[kind][1] for piece in pieces] or [np.empty(0, np.int64)]),
        )
        for kind in KINDS
    }


def _pieces(scores: Scores) -> Iterator[dict[str, tuple[Floats, npt.NDArray[np.int64]]]]:
    targets, infinite = scores.targets, np.float32(np.inf)
    for start in range(0, len(scores.logits) if targets.num_labels else 0, _IMAGES_AT_ONCE):
        # Of what is no number a model is not sure.
        logits = np.nan_to_num(scores.logits[start : start + _IMAGES_AT_ONCE], nan=0.0)
        offsets = targets.offsets[start : start + len(logits) + 1]
        there = np.zeros(logits.shape, dtype=bool)
        there[np.repeat(np.arange(len(logits)), np.diff(offsets)), targets.indices[offsets[0] : offsets[-1]]] = True
        rows, top = np.arange(len(logits)), logits.argmax(axis=1)
        without, only = np.where(there, -infinite, logits), np.where(there, logits, infinite)
        wrong, missed = without.argmax(axis=1), only.argmin(axis=1)
        yield {
            "right": (np.where(there[rows, top], logits[rows, top], -infinite), top),
            "wrong": (without[rows, wrong], wrong),
            "missed": (only[rows, missed], missed),
        }


def _example(scores: Scores, names: Sequence[str], partition: Partition, image: int, label: int) -> dict[str, Any]:
    targets, columns = scores.targets, partition.columns
    own = targets.indices[targets.offsets[image] : targets.offsets[image + 1]]
    user = int(np.searchsorted(columns.user_offsets, image, side="right")) - 1
    logit = float(scores.logits[image, label])
    return {
        "image": image,
        "name": f"{columns.user_ids[user]}/{columns.image_ids[image]}",
        "label": names[label],
        "probability": float(1 / (1 + np.exp(-np.clip(logit, -700, 700)))),
        "labels": [names[one] for one in own.tolist()],
    }
