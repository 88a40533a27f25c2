"""How far the users of a partition leave its scores open: average precision with each group of them left out in turn.

The delete-a-group jackknife (Kott 2001, The Delete-a-Group Jackknife, Journal of Official Statistics 17): users are
dealt at random to 20 groups, and each score is computed without each group. From the spread of those 20 values follows
the standard error of the score, and from the spread of two models' differences that of their difference, in which what
is hard about a user cancels. The groups depend on the number of users only, so that runs on one store have the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fedflair.metrics.average_precision import num_at_least
from fedflair.metrics.multi_label import BLOCK_SCORES, Targets
from fedflair.sampling import stream

NUM_GROUPS = 20

Floats = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]


def groups_of_images(user_offsets: npt.NDArray[np.int64]) -> Groups:
    """The group of each image, by the group of its user: int64 [n]; no more groups than users.

    user_offsets: int64 [users + 1], where each user's images begin and end.
    """
    num_users = len(user_offsets) - 1
    dealt = stream(0, "groups left out").permutation(num_users) % min(NUM_GROUPS, max(num_users, 1))
    return np.repeat(dealt.astype(np.int64), np.diff(user_offsets))


def ap_without_groups(
    logits: npt.NDArray[np.float32], targets: Targets, groups: Groups, *, block_scores: int = BLOCK_SCORES
) -> dict[str, list[float]]:
    """``macro_ap`` and ``micro_ap`` of the images without each of the groups; nan where nothing is left to score.

    logits: float32 [n, L]. groups: int64 [n]. One sort gives them all: of each positive's score it is counted by group
    how many scores reach it, and those of the group that is left out are taken off.
    """
    num_groups = int(groups.max(initial=-1)) + 1
    order = np.argsort(groups, kind="stable")
    bounds = [0, *np.cumsum(np.bincount(groups, minlength=num_groups)).tolist()]
    owners = np.repeat(np.arange(targets.num_examples), np.diff(targets.offsets))
    by_label = np.argsort(targets.indices, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(targets.indices, minlength=targets.num_labels))])
    scores = logits[owners, targets.indices]
    ascending = np.argsort(scores, kind="stable")
    thresholds, of_thresholds = scores[ascending], groups[owners[ascending]]
    reached = np.zeros((num_groups, len(thresholds)), dtype=np.int64)
    total, counted = np.zeros(num_groups), np.zeros(num_groups)
    width = max(1, block_scores // max(len(logits), 1))
    for first in range(0, targets.num_labels, width):
        block = logits[:, first : first + width].T[:, order]
        parts = [np.sort(block[:, start:stop], axis=1) for start, stop in pairwise(bounds)]
        for label in range(first, first + len(block)):
            own = by_label[starts[label] : starts[label + 1]]
            own = own[np.argsort(scores[own], kind="stable")]
            predicted = np.stack([num_at_least(part[label - first], scores[own]) for part in parts])
            values = _without_each(scores[own], groups[owners[own]], predicted)
            total += np.nan_to_num(values)
            counted += ~np.isnan(values)
        for group, part in enumerate(parts):
            reached[group] += num_at_least(np.sort(part, axis=None), thresholds)
    macro = np.divide(total, counted, out=np.full(num_groups, np.nan), where=counted > 0)
    micro = _without_each(thresholds, of_thresholds, reached)
    return {"macro_ap": macro.tolist(), "micro_ap": micro.tolist()}


def standard_error(values: Sequence[float]) -> float | None:
    """Of a score, or of a difference of scores, from its values without each group; None where they say nothing."""
    found = np.array(values, dtype=np.float64)
    if len(found) < 2 or not np.isfinite(found).all():
        return None
    return math.sqrt((len(found) - 1) / len(found) * float(np.sum((found - found.mean()) ** 2)))


def _without_each(positives: npt.NDArray[np.float32], groups: Groups, predicted: npt.NDArray[np.int64]) -> Floats:
    """AP without each group: float64 [num_groups], nan where no positive is left.

    positives: float32 [p], ascending. groups: theirs. predicted: int64 [num_groups, p], how many scores of each group
    reach each positive's.
    """
    of_group = groups == np.arange(len(predicted))[:, None]
    values: Floats = np.full(len(predicted), np.nan)
    everyone, right = predicted.sum(axis=0), num_at_least(positives, positives)
    for group, own in enumerate(of_group):
        if own.all():
            continue
        hits = right - num_at_least(positives[own], positives)
        values[group] = np.mean((hits / np.maximum(everyone - predicted[group], 1))[~own])
    return values
