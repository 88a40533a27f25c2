"""AP with groups of users left out: exactly that of the images that stay, and the standard error from it by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.metrics.left_out import NUM_GROUPS, ap_without_groups, groups_of_images, standard_error
from fedflair.metrics.multi_label import Targets, multi_label_metrics


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.sampled_from([7, 4_000_000]))
def test_each_value_is_that_of_the_images_that_stay(seed: int, num_groups: int, block_scores: int) -> None:
    """Tied scores, labels whose positives are all in one group, and blocks of one label at a time among them."""
    random = np.random.default_rng(seed)
    logits = random.integers(-3, 4, (40, 6)).astype(np.float32)
    hot = random.random((40, 6)) < 0.15
    groups = np.concatenate([np.arange(num_groups), random.integers(0, num_groups, 40 - num_groups)])
    found = ap_without_groups(logits, Targets.from_dense(hot), groups, block_scores=block_scores)
    for group in range(num_groups):
        kept = groups != group
        values = multi_label_metrics(logits[kept], Targets.from_dense(hot[kept])).values()
        for name in ("macro_ap", "micro_ap"):
            assert found[name][group] == pytest.approx(values[name], abs=1e-12, nan_ok=True)


def test_a_user_s_images_are_left_out_together_and_groups_are_even() -> None:
    groups = groups_of_images(np.arange(0, 3 * 101, 3))
    by_user = groups.reshape(100, 3)
    assert (by_user == by_user[:, :1]).all()
    assert np.bincount(by_user[:, 0]).tolist() == [5] * NUM_GROUPS
    # Of fewer users than groups each is one.
    assert sorted(groups_of_images(np.array([0, 2, 3, 4]))[[0, 2, 3]]) == [0, 1, 2]


def test_the_standard_error_by_hand() -> None:
    # sqrt(2 / 3 * (0.1^2 + 0 + 0.1^2))
    assert standard_error([0.4, 0.5, 0.6]) == pytest.approx(math.sqrt(2 / 3 * 0.02))
    # Of a mean, it is the usual one: the deviation over the square root of the number.
    values = np.array([1.0, 4.0, 2.0, 7.0])
    without = [float(np.delete(values, k).mean()) for k in range(4)]
    assert standard_error(without) == pytest.approx(values.std(ddof=1) / 2)
    assert standard_error([0.5]) is None
    assert standard_error([0.5, float("nan")]) is None
