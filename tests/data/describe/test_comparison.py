"""Small pieces of the comparison with what FLAIR's paper reports."""

from __future__ import annotations

import pytest

from fedflair.data.describe.comparison import count, most_frequent, number, share


def test_labels_on_no_image_are_not_among_the_most_frequent() -> None:
    everything = {"coarse": {"images_per_label": {"art": 0, "food": 2, "animal": 9, "plant": 1, "sky": 0}}}
    assert most_frequent(everything, "coarse", 2) == ["animal", "food"]
    assert most_frequent(everything, "coarse", 5) == ["animal", "food", "plant"]


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, ""), (float("nan"), "-"), (1234.0, "1,234"), (0.0, "0"), (1234.5678, "1,234.568"), (-0.25, "-0.250")],
)
def test_numbers_are_whole_or_have_three_decimals(value: float | None, words: str) -> None:
    assert number(value) == words


def test_counts_and_shares() -> None:
    assert (count(None), count(0), count(51_414)) == ("", "0", "51,414")
    assert (share(None, 8), share(1, 0), share(1, 8), share(0, 8)) == ("", "", "12.5", "0.0")
