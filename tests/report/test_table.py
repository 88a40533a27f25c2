"""The table of scores."""

from __future__ import annotations

from pathlib import Path

from fedflair.report.data import read_groups
from fedflair.report.table import cells
from tests.report.folders import write_run


def test_cells_by_hand(tmp_path: Path) -> None:
    (group,) = read_groups([write_run(tmp_path / "a", 0.61)])
    assert cells(group) == ("a", "flair", "2", "-", "0.610", "0.500", "0.400", "0.300", "0.200", "1.5")
