"""The published figures agree with each other, so that a mistyped digit shows."""

from __future__ import annotations

import pytest

from fedflair.data import published as flair


def test_partitions_sum_to_the_dataset() -> None:
    assert sum(size.users for size in flair.PARTITION_SIZES.values()) == flair.NUM_USERS == 51_414
    assert sum(size.images for size in flair.PARTITION_SIZES.values()) == flair.NUM_IMAGES == 429_078


def test_images_per_user_have_the_published_mean() -> None:
    assert pytest.approx(flair.IMAGES_PER_USER.mean, abs=0.005) == flair.NUM_IMAGES / flair.NUM_USERS


def test_coarse_counts_sum_to_the_published_mean_per_image() -> None:
    assert len(flair.COARSE_COUNTS) == 17
    assert sum(flair.COARSE_COUNTS.values()) == 1_195_089
    per_image = sum(flair.COARSE_COUNTS.values()) / flair.NUM_IMAGES
    assert per_image == pytest.approx(flair.COARSE_LABELS_PER_IMAGE.mean, abs=0.0005)


@pytest.mark.parametrize("counts", [flair.COARSE_COUNTS, flair.FINE_HEAD_COUNTS])
def test_counts_fall(counts: dict[str, int]) -> None:
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


def test_head_of_the_fine_labels() -> None:
    assert len(flair.FINE_HEAD_COUNTS) == 20
    assert sum(flair.FINE_HEAD_COUNTS.values()) == 763_689
    # A label and the coarse label of the same name: no fine label is on more images than its coarse label.
    for name in set(flair.FINE_HEAD_COUNTS) & set(flair.COARSE_COUNTS):
        assert flair.FINE_HEAD_COUNTS[name] <= flair.COARSE_COUNTS[name]


@pytest.mark.parametrize(
    "distribution",
    [
        flair.IMAGES_PER_USER,
        flair.COARSE_LABELS_PER_IMAGE,
        flair.FINE_LABELS_PER_IMAGE,
        flair.COARSE_LABELS_PER_USER,
        flair.FINE_LABELS_PER_USER,
    ],
)
def test_distributions_are_ordered(distribution: flair.Distribution) -> None:
    values = [distribution.minimum, *distribution.quartiles, distribution.maximum]
    assert values == sorted(values)
    assert distribution.minimum < distribution.mean < distribution.maximum
