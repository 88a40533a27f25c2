"""Distributions over users and what tuning gains, by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fedflair.metrics.per_user import USER_METRICS
from fedflair.metrics.user_summary import SIZES, distribution, size_name, summarise_users


def row(num_images: int, value: float, tuned: float | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"user_id": "u", "num_images": num_images, **dict.fromkeys(USER_METRICS, value)}
    if tuned is not None:
        found |= {"global": dict.fromkeys(USER_METRICS, value), "personalised": dict.fromkeys(USER_METRICS, tuned)}
    return found


def test_distribution_by_hand() -> None:
    values = [float(k) for k in range(1, 21)]
    assert distribution([*values, math.nan], "micro_ap") == pytest.approx(
        {"mean": 10.5, "std": math.sqrt(33.25), "q1": 5.75, "median": 10.5, "q3": 15.25, "worst_tenth": 1.5}
    )
    assert distribution(values, "loss")["worst_tenth"] == 19.5
    assert distribution([3.0], "micro_ap")["worst_tenth"] == 3.0
    assert all(math.isnan(value) for value in distribution([math.nan], "micro_ap").values())


def test_every_size_has_its_class() -> None:
    assert [size_name(*size) for size in SIZES] == ["1", "2", "3-5", "6-16", "17-64", ">64"]
    by_size = summarise_users([row(n, 0.5) for n in (1, 1, 2, 3, 5, 6, 16, 17, 64, 65, 4151)])["by_size"]
    assert [(found["images"], found["num_users"]) for found in by_size] == [
        ("1", 2), ("2", 1), ("3-5", 2), ("6-16", 2), ("17-64", 2), (">64", 2)
    ]  # fmt: skip


def test_gains_count_users_with_held_out_images() -> None:
    summary = summarise_users([row(1, 0.9), row(2, 0.5, 0.7), row(4, 0.5, 0.6), row(5, 0.5, 0.45), row(30, math.nan)])
    tuned = summary["personalisation"]
    assert (summary["num_users"], summary["num_images"], summary["num_users_without_positives"]) == (5, 42, 1)
    assert (tuned["num_users"], tuned["num_users_left_out"]) == (3, 2)
    gain = tuned["gain"]["micro_ap"]
    assert gain["mean"] == pytest.approx(0.25 / 3)
    # Gains 0.2, 0.1, -0.05: sample deviation 0.1258, over the root of 3.
    assert gain["standard_error"] == pytest.approx(0.0726483)
    assert (gain["share_risen"], gain["share_fallen"]) == pytest.approx((2 / 3, 1 / 3))
    assert tuned["personalised"]["micro_ap"]["mean"] == pytest.approx(1.75 / 3)
    middle = next(found for found in summary["by_size"] if found["images"] == "3-5")
    assert (middle["global_micro_ap"], middle["personalised_micro_ap"]) == pytest.approx((0.5, 0.525))


def test_without_tuned_users_there_is_no_personalisation() -> None:
    assert summarise_users([row(1, 0.5)])["personalisation"] is None
