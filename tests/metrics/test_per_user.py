"""Metrics of one user, by hand and against those of a partition, and their averages."""

from __future__ import annotations

import numpy as np
import pytest

from fedflair.metrics.multi_label import Targets, multi_label_metrics
from fedflair.metrics.per_user import USER_METRICS, UserAverages, user_metrics


def test_a_user_with_one_image_by_hand() -> None:
    logits = np.array([[2.0, -1.0, 1.0, -3.0]], dtype=np.float32)
    got = user_metrics(logits, np.array([[1, 1, 0, 0]], dtype=np.uint8))
    # Ranked: hit, miss, hit, miss.
    assert got["micro_ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert (got["micro_precision"], got["micro_recall"], got["micro_f1"]) == (0.5, 0.5, 0.5)
    assert got["micro_accuracy"] == 0.5
    assert got["loss"] == pytest.approx(np.log1p(np.exp([-2.0, 1.0, 1.0, -3.0])).mean())


def test_a_users_metrics_are_the_micro_metrics_of_its_images() -> None:
    generator = np.random.default_rng(0)
    logits = np.round(generator.normal(size=(9, 5)), 1).astype(np.float32)
    targets = (generator.random((9, 5)) < 0.3).astype(np.uint8)
    whole = multi_label_metrics(logits, Targets.from_dense(targets)).values()
    got = user_metrics(logits, targets)
    assert tuple(got) == USER_METRICS
    assert got == pytest.approx({name: whole[name] for name in USER_METRICS}, rel=1e-6)


def test_averages_count_users_alike_or_by_their_images() -> None:
    one = dict(zip(USER_METRICS, (1.0, 0.0, 0.0, 0.0, 0.0, 2.0)))
    other = dict(zip(USER_METRICS, (0.5, 0.0, 0.0, 1.0, 0.0, 1.0)))
    averages = UserAverages.of_user(one, 1) + UserAverages.of_user(other, 3)
    assert (averages.num_users, averages.num_images) == (2, 4)
    means, weighted = averages.means(), averages.image_weighted_means()
    assert (means["micro_ap"], means["loss"], means["micro_f1"]) == (0.75, 1.5, 0.5)
    assert (weighted["micro_ap"], weighted["loss"], weighted["micro_f1"]) == (0.625, 1.25, 0.75)


def test_a_user_without_positives_is_left_out_of_average_precision_alone() -> None:
    absent = user_metrics(np.array([[-1.0]], np.float32), np.zeros((1, 1), np.uint8))
    present = user_metrics(np.array([[1.0]], np.float32), np.ones((1, 1), np.uint8))
    averages = UserAverages.of_user(absent, 5) + UserAverages.of_user(present, 1)
    assert (averages.num_users, averages.num_scored, averages.num_scored_images) == (2, 1, 1)
    assert averages.means()["micro_ap"] == averages.image_weighted_means()["micro_ap"] == 1.0
    assert averages.means()["micro_accuracy"] == 1.0


def test_without_users_there_are_no_means() -> None:
    assert all(np.isnan(value) for value in UserAverages().means().values())
