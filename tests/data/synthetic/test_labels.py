"""Labels: exact totals, published distributions, users who differ. perf/synthesize.py checks all of full scale."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedflair.data.published import COARSE_COUNTS, FINE_HEAD_COUNTS, NUM_USERS
from fedflair.data.synthetic.labels import (
    FINE_NAMES,
    PartitionLabels,
    count_distribution,
    exchange,
    make_labels,
    partition_totals,
)
from fedflair.data.synthetic.vocabulary import COARSE_LABELS, FINE_TO_COARSE
from tests.properties import examples


@pytest.fixture(scope="module")
def full_test() -> PartitionLabels:
    """FLAIR's test partition: 5,142 users, 43,960 images."""
    return make_labels(NUM_USERS, 0, partitions=("test",))["test"]


@pytest.fixture(scope="module")
def mini() -> dict[str, PartitionLabels]:
    return make_labels(400, 0, min_label_share=0.02)


def test_count_distribution_has_the_mean_and_deviation() -> None:
    counts = count_distribution(100_000, 278_500, 1.149, 9)
    values = np.repeat(np.arange(1, 10), counts)
    assert (len(values), values.sum(), values.max()) == (100_000, 278_500, 9)
    assert values.std() == pytest.approx(1.149, rel=1e-3)
    assert np.percentile(values, [25, 50, 75]).tolist() == [2, 3, 4]


@given(st.integers(8, 3000), st.floats(2.0, 4.0))
def test_count_distribution_is_exact_at_any_size(n: int, mean: float) -> None:
    counts = count_distribution(n, round(n * mean), 1.149, 9)
    assert counts.min() >= 0
    assert counts.sum() == n
    assert counts @ np.arange(1, 10) == round(n * mean)


@given(st.integers(0, 10_000))
def test_exchange_reaches_the_totals_and_keeps_the_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chosen = rng.random((60, 6)) < 0.4
    wanted = (rng.permuted(chosen, axis=1)).sum(axis=0)
    rows = chosen.sum(axis=1)
    exchange(chosen, wanted, rng)
    assert chosen.sum(axis=0).tolist() == wanted.tolist()
    assert chosen.sum(axis=1).tolist() == rows.tolist()


def test_shares_of_the_partitions_sum_to_the_published_totals() -> None:
    published = np.array([*COARSE_COUNTS.values(), *FINE_HEAD_COUNTS.values()])
    images = {"train": 345_879, "val": 39_239, "test": 43_960}
    parts = [partition_totals(published, name, n) for name, n in images.items()]
    assert sum(parts).tolist() == published.tolist()


def test_full_scale_coarse_totals_are_exact(full_test: PartitionLabels) -> None:
    assert full_test.num_images == 43_960
    totals = partition_totals(np.array([COARSE_COUNTS[label] for label in COARSE_LABELS]), "test", 43_960)
    assert full_test.coarse.sum(axis=0).tolist() == totals.tolist()
    # 866 images of religion in FLAIR, of which a partition of 43,960 of 429,078 images has 88.7.
    assert totals[COARSE_LABELS.index("religion")] == 89


def test_full_scale_labels_per_image(full_test: PartitionLabels) -> None:
    coarse = full_test.coarse.sum(axis=1)
    fine = np.diff(full_test.fine_offsets)
    assert np.percentile(coarse, [0, 25, 50, 75, 100]).tolist() == [1, 2, 3, 4, 9]
    assert np.percentile(fine, [0, 25, 50, 75, 100]).tolist() == [1, 3, 4, 6, 36]
    assert coarse.mean() == pytest.approx(2.785, rel=0.001)
    assert coarse.std() == pytest.approx(1.149, rel=0.01)
    assert fine.mean() == pytest.approx(4.615, rel=0.02)
    assert fine.std() == pytest.approx(2.730, rel=0.03)


def test_full_scale_labels_per_user(full_test: PartitionLabels) -> None:
    coarse = np.logical_or.reduceat(full_test.coarse, full_test.user_offsets[:-1], axis=0).sum(axis=1)
    assert np.percentile(coarse, [25, 50, 75]).tolist() == [3, 4, 6]
    assert coarse.mean() == pytest.approx(4.61, rel=0.05)
    fine = np.array([len(np.unique(labels)) for labels in fine_of_users(full_test)])
    assert np.percentile(fine, [25, 50, 75]).tolist() == [4, 7, 16]
    assert fine.mean() == pytest.approx(16.81, rel=0.05)


def test_full_scale_head_is_exact(full_test: PartitionLabels) -> None:
    counts = np.bincount(full_test.fine_indices, minlength=len(FINE_NAMES))
    for name, published in FINE_HEAD_COUNTS.items():
        assert counts[FINE_NAMES.index(name)] == partition_totals(np.array([published]), "test", 43_960)[0]
    rest = [counts[k] for k, name in enumerate(FINE_NAMES) if name not in FINE_HEAD_COUNTS]
    assert max(rest) < counts[FINE_NAMES.index("vegetation")]


def test_coarse_labels_are_those_of_the_fine_labels(mini: dict[str, PartitionLabels]) -> None:
    for part in mini.values():
        for image in range(part.num_images):
            fine = part.fine_indices[part.fine_offsets[image] : part.fine_offsets[image + 1]]
            assert (np.diff(fine.astype(int)) > 0).all()
            coarse = {FINE_TO_COARSE[FINE_NAMES[k]] for k in fine}
            assert coarse == {COARSE_LABELS[k] for k in np.flatnonzero(part.coarse[image])}


def test_mini_has_every_coarse_label_often_enough(mini: dict[str, PartitionLabels]) -> None:
    for part in mini.values():
        assert part.coarse.sum(axis=0).min() >= 0.02 * part.num_images
    structure = mini["train"].coarse[:, COARSE_LABELS.index("structure")]
    assert structure.mean() == pytest.approx(228_923 / 429_078, abs=0.001)


def test_users_differ_more_than_chance(mini: dict[str, PartitionLabels]) -> None:
    """A user's own label shares lie farther from the population's than those of as many random images."""
    part = mini["train"]
    population = part.coarse.mean(axis=0)
    shuffled = part.coarse[np.random.default_rng(0).permutation(part.num_images)]

    def spread(labels: np.ndarray) -> float:
        bounds = zip(part.user_offsets[:-1], part.user_offsets[1:])
        shares = [labels[a:b].mean(axis=0) - population for a, b in bounds if b - a >= 10]
        return float(np.square(shares).sum(axis=1).mean())

    assert spread(part.coarse) > 2 * spread(shuffled)


def test_partitions_do_not_depend_on_each_other_but_on_the_seed() -> None:
    together, alone = make_labels(60, 5)["val"], make_labels(60, 5, partitions=("val",))["val"]
    assert together.user_ids == alone.user_ids == sorted(alone.user_ids)
    assert together.image_ids.tolist() == alone.image_ids.tolist()
    assert together.fine_indices.tolist() == alone.fine_indices.tolist()
    assert make_labels(60, 6)["val"].fine_indices.tolist() != alone.fine_indices.tolist()


@examples(15)
@given(st.integers(10, 120), st.integers(0, 1000))
def test_any_number_of_users_gives_every_image_a_label(num_users: int, seed: int) -> None:
    labels = make_labels(num_users, seed, min_label_share=0.02)
    user_ids = [user_id for part in labels.values() for user_id in part.user_ids]
    assert len(set(user_ids)) == num_users
    for part in labels.values():
        assert part.coarse.sum(axis=1).min() >= 1
        assert np.diff(part.fine_offsets).min() >= 1
        for start, stop in zip(part.user_offsets[:-1], part.user_offsets[1:]):
            assert (np.diff(part.image_ids[start:stop]) > 0).all()


def fine_of_users(part: PartitionLabels) -> list[np.ndarray]:
    bounds = part.fine_offsets[part.user_offsets]
    return [part.fine_indices[start:stop] for start, stop in pairwise(bounds)]
