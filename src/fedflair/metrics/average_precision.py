"""Average precision (AP), exact for any scores and ties, from sorted scores and the scores of the positives alone.

AP is the step-wise area under the precision-recall curve, sum over distinct thresholds of (R_k - R_{k-1}) P_k, as in
scikit-learn's ``average_precision_score``; equal scores share a threshold. Recall moves at the scores of positives
only, by 1/positives for each, so AP is the mean over the positives of the precision at the positive's own score: the
number of positives that score at least as much, over the number of all that do. Neither needs the order of the
targets, so plain sorts of the scores do, block by block, and blocks' counts add up.

NaN scores count as equal to each other and above all others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Counts = npt.NDArray[np.int64]


def average_precision(scores: Floats, targets: npt.NDArray[Any]) -> float:
    """AP of one label. scores: float [n], higher is surer; targets: 0/1 [n]. NaN where no target is 1."""
    positives = np.sort(scores[targets > 0])
    return mean_precision(positives, num_at_least(np.sort(scores), positives))


def num_at_least(ordered: Floats, thresholds: Floats) -> Counts:
    """How many of the ascending ``ordered`` reach each of the ascending ``thresholds``: int64 [len(thresholds)]."""
    return len(ordered) - np.searchsorted(ordered, thresholds, side="left").astype(np.int64)


def mean_precision(positives: Floats, num_predicted: Counts) -> float:
    """AP from the ascending scores of the positives and the number of all scores that reach each; NaN without any."""
    if len(positives) == 0:
        return float("nan")
    return float(np.mean(num_at_least(positives, positives) / num_predicted))
