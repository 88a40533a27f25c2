"""The page of configurations has each of them, with what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs.generate import configurations


def test_each_shipped_configuration_says_what_it_is_for() -> None:
    text = configurations.listing([*configurations.shipped(), *configurations.sweeps()])
    assert text.count("\n```yaml\n") == len(configurations.shipped()) + len(configurations.sweeps())
    assert "### baseline\n\nThe published benchmark: FedAvg" in text
    assert "algorithm_name: fedprox\nmu: 0.01\n```" in text


def test_commands_in_the_words_are_set_apart() -> None:
    (photographs,) = (path for path in configurations.sweeps() if path.stem == "photographs")
    words, options = configurations.purpose_and_options(photographs)
    assert "\n```text\n  fedflair prepare" in words
    assert options.startswith("options:\n")


def test_one_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("cohort_size: 3\n")
    with pytest.raises(ValueError, match="begins with no comment"):
        configurations.listing([tmp_path / "a.yaml"])
