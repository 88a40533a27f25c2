"""FLAIR's published figures as data: what `describe` sets beside a store's own, and what `synthesize` follows.

Source: the FLAIR paper (Song et al., NeurIPS 2022 Datasets and Benchmarks) and the dataset's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PartitionSize:
    """Users and images of one partition."""

    users: int
    images: int


@dataclass(frozen=True)
class Distribution:
    """A published summary of a count: the mean and deviation rounded as published, the rest exact integers.

    None where nothing was published (no deviation for distinct coarse labels per user).
    """

    mean: float
    std: float | None
    minimum: int
    quartiles: tuple[int, int, int]
    maximum: int


PARTITION_SIZES: dict[str, PartitionSize] = {
    "train": PartitionSize(41_131, 345_879),
    "val": PartitionSize(5_141, 39_239),
    "test": PartitionSize(5_142, 43_960),
}
NUM_USERS = 51_414
NUM_IMAGES = 429_078

COARSE_COUNTS: dict[str, int] = {
    "structure": 228_923,
    "equipment": 225_862,
    "material": 139_733,
    "outdoor": 131_322,
    "plant": 123_363,
    "food": 110_792,
    "animal": 68_858,
    "liquid": 68_677,
    "art": 37_230,
    "interior_room": 32_042,
    "light": 11_326,
    "recreation": 5_651,
    "celebration": 3_769,
    "fire": 3_011,
    "music": 2_571,
    "games": 1_093,
    "religion": 866,
}
"""Images per coarse label, over all partitions, most frequent first."""

FINE_HEAD_COUNTS: dict[str, int] = {
    "wood_processed": 82_336,
    "material": 74_807,
    "structure": 61_517,
    "grass": 44_741,
    "plate": 42_392,
    "plant": 42_009,
    "blue_sky": 41_043,
    "foliage": 40_793,
    "cloudy": 36_225,
    "tree": 33_984,
    "textile": 33_709,
    "building": 32_349,
    "rocks": 28_850,
    "container": 25_189,
    "land": 24_715,
    "sky": 24_669,
    "fence": 24_249,
    "food": 23_752,
    "interior_room": 23_254,
    "vegetation": 23_106,
}
"""Images per fine-grained label, over all partitions: the 20 most frequent of 1,628."""

NUM_FINE_LABELS = 1_628
NUM_RELATION_LINES = 1_639

IMAGES_PER_USER = Distribution(8.35, 51.28, 1, (1, 2, 5), 4_151)
COARSE_LABELS_PER_IMAGE = Distribution(2.785, 1.149, 1, (2, 3, 4), 9)
FINE_LABELS_PER_IMAGE = Distribution(4.615, 2.730, 1, (3, 4, 6), 36)
COARSE_LABELS_PER_USER = Distribution(4.61, None, 1, (3, 4, 6), 17)
FINE_LABELS_PER_USER = Distribution(16.81, 32.67, 1, (4, 7, 16), 838)


@dataclass(frozen=True)
class Score:
    """Percent on test, mean and deviation over seeds as published; the metric is the configuration's best_metric."""

    mean: float
    std: float


SCORES: dict[str, Score] = {
    "baseline": Score(62.0, 0.3),
    "coarse_scratch": Score(50.1, 0.5),
    "fine_pretrained": Score(27.0, 0.4),
    "fine_scratch": Score(22.5, 0.3),
}
"""By shipped configuration: macro AP of 17 labels, micro AP of 1,628 (the dataset's two benchmark repositories)."""


def licence_of(provenance: Mapping[str, Any]) -> str:
    """What is to be said wherever photographs of a store are shown. provenance: the store's own."""
    if provenance.get("source") == "synthetic":
        return "The photographs are synthetic, drawn by fedflair: nobody's, and free."
    if provenance.get("source") == "photographs":
        return "The photographs are people's own, not FLAIR's. Whoever hands this page on hands them on."
    return (
        "Each photograph has its owner's licence, which FLAIR's ATTRIBUTION.txt names; FLAIR's annotations are under "
        "CC-BY-NC 4.0. Whoever hands this page on hands the photographs on."
    )
