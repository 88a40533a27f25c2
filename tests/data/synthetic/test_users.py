"""Users and their numbers of images: exact at full scale, in proportion below it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.published import IMAGES_PER_USER, NUM_IMAGES, NUM_USERS, PARTITION_SIZES
from fedflair.data.synthetic.users import _trade, apportion, identifiers, sizes_by_partition
from tests.properties import examples


def test_apportion_by_largest_remainder() -> None:
    assert apportion([1, 1, 1], 10).tolist() == [4, 3, 3]
    assert apportion([5, 3, 2], 10).tolist() == [5, 3, 2]
    assert apportion([0.6, 0.25, 0.15], 2).tolist() == [1, 1, 0]


@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=20), st.integers(0, 10_000))
def test_apportion_sums_exactly_and_is_off_by_less_than_one(weights: list[float], total: int) -> None:
    counts = apportion(weights, total)
    assert counts.sum() == total
    assert (np.abs(counts - np.array(weights) * total / sum(weights)) < 1 + 1e-6).all()


def test_full_scale_has_the_published_sizes() -> None:
    sizes = sizes_by_partition(NUM_USERS, seed=3)
    assert {name: (len(part), part.sum()) for name, part in sizes.items()} == {
        name: (size.users, size.images) for name, size in PARTITION_SIZES.items()
    }
    every = np.concatenate(list(sizes.values()))
    assert every.min() == 1
    assert np.percentile(every, [25, 50, 75]).tolist() == [1, 2, 5]
    assert every.max() == 4_151
    assert every.std() == pytest.approx(IMAGES_PER_USER.std, rel=0.05)


def test_the_seed_decides_who_has_how_many() -> None:
    first, again, other = (sizes_by_partition(300, seed)["train"] for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert sorted(first.tolist()) == sorted(other.tolist())


@examples(25)
@given(st.integers(10, 2000))
def test_any_number_of_users_keeps_the_proportions(num_users: int) -> None:
    sizes = sizes_by_partition(num_users, seed=0)
    assert [len(part) for part in sizes.values()] == apportion([41_131, 5_141, 5_142], num_users).tolist()
    every = np.concatenate(list(sizes.values()))
    total = round(NUM_IMAGES * num_users / NUM_USERS)
    assert every.sum() == total
    assert every.min() == 1
    assert every.max() <= max(40, 0.05 * total) + 1
    assert abs(np.median(every) - 2) <= (num_users < 50)


def test_partitions_trade_the_pair_that_closes_most_of_the_gap() -> None:
    # Three images short: one user of 1 for the one of 4, at once.
    hand, other = np.array([1, 1]), np.array([2, 3, 4])
    _trade(hand, other, 5)
    assert (hand.tolist(), other.tolist()) == ([4, 1], [2, 3, 1])
    # Two too many, which no pair meets at once: 5 for 4, twice.
    hand, other = np.array([5, 5]), np.array([4, 9, 4])
    _trade(hand, other, 8)
    assert (hand.tolist(), other.tolist()) == ([4, 4], [5, 9, 5])


def test_mini_has_8_to_1_to_1_users_and_images() -> None:
    sizes = sizes_by_partition(400, seed=0)
    assert {name: (len(part), int(part.sum())) for name, part in sizes.items()} == {
        "train": (320, 2691),
        "val": (40, 305),
        "test": (40, 342),
    }


def test_identifiers_are_distinct_and_look_like_flickrs() -> None:
    user_ids, image_ids = identifiers(2_000, 10_000, seed=0)
    assert len(set(user_ids)) == 2_000
    assert all(re.fullmatch(r"[0-9]{5,9}@N0[0-8]", user_id) for user_id in user_ids)
    assert len(np.unique(image_ids)) == 10_000
    assert image_ids.min() > 0 and image_ids.max() < 42_400_000_000
    assert identifiers(2_000, 10_000, seed=1)[0] != user_ids
