"""AP against scikit-learn on random and tied scores, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from fedflair.metrics.average_precision import average_precision, num_at_least

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)


def test_average_precision_by_hand() -> None:
    # Ranked: hit, miss, hit -> 1/2 * 1/1 + 1/2 * 2/3.
    scores = np.array([0.9, 0.5, 0.1], dtype=np.float32)
    assert average_precision(scores, np.array([1, 0, 1], dtype=np.uint8)) == pytest.approx(5 / 6)


def test_tied_scores_share_a_threshold() -> None:
    # One threshold for all four: precision 1/4 at recall 1.
    assert average_precision(np.zeros(4, np.float32), np.array([0, 0, 0, 1], np.uint8)) == pytest.approx(0.25)


def test_without_positives_there_is_no_average_precision() -> None:
    assert np.isnan(average_precision(np.ones(3, np.float32), np.zeros(3, np.uint8)))


def test_nan_scores_are_ties_above_all_others() -> None:
    scores = np.array([np.nan, 1.0, np.nan, 2.0], dtype=np.float32)
    # Thresholds: NaN (2 scores, 1 hit), then 2.0 (3 scores, 2 hits).
    assert average_precision(scores, np.array([1, 0, 0, 1], np.uint8)) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_num_at_least_counts_equal_scores() -> None:
    ordered = np.array([-1.0, 0.0, 0.0, 2.0], dtype=np.float32)
    thresholds = np.array([-2.0, 0.0, 2.0, 3.0], dtype=np.float32)
    assert num_at_least(ordered, thresholds).tolist() == [4, 3, 1, 0]


@given(
    st.one_of(
        st.lists(st.tuples(st.integers(-3, 3).map(float), st.booleans()), min_size=1, max_size=60),
        st.lists(st.tuples(FINITE, st.booleans()), min_size=1, max_size=60),
    ).filter(lambda pairs: any(hit for _, hit in pairs))
)
def test_average_precision_equals_scikit_learn(pairs: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in pairs], dtype=np.float32)
    targets = np.array([hit for _, hit in pairs], dtype=np.uint8)
    assert average_precision(scores, targets) == pytest.approx(average_precision_score(targets, scores), abs=1e-6)
