"""What is drawn, and in which colour."""

from __future__ import annotations

from pathlib import Path

from fedflair.report.data import read_groups
from fedflair.report.plots import COLOURS, label_plot
from tests.report.folders import write_run


def test_a_group_keeps_its_colour_where_another_has_no_values(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, 0.5, label_ap={} if name == "a" else {"food": 0.5}) for name in "ab"]
    drawn = label_plot(read_groups(runs), ["food"])
    assert COLOURS[1] in drawn
    assert COLOURS[0] not in drawn
