"""Whether the runs of two tools can be told apart, over seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Curves = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Apart:
    """difference: of the means of two samples, with its 95 % interval (Welch). welch, permutation: p-values, two-sided.

    smallest: what the permutation test could have shown at best with so few runs.
    """

    difference: float
    half_width: float
    welch: float
    permutation: float
    smallest: float


def told_apart(left: Curves, right: Curves) -> Apart:
    """Two samples of one number a run: [seeds] each, at least two."""
    welch = stats.ttest_ind(left, right, equal_var=False)
    interval = welch.confidence_interval(0.95)
    permuted = stats.permutation_test(
        (left, right), lambda a, b, axis: np.mean(a, axis) - np.mean(b, axis), vectorized=True, n_resamples=np.inf
    )
    # Each split and its mirror image are as far apart as the one that was seen.
    smallest = 2 / len(permuted.null_distribution)
    return Apart(
        difference=float(left.mean() - right.mean()),
        half_width=float(interval.high - interval.low) / 2,
        welch=float(welch.pvalue),
        permutation=float(permuted.pvalue),
        smallest=smallest,
    )
