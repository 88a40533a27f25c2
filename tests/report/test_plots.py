"""What is drawn, and in which colour."""

from __future__ import annotations

import re
from pathlib import Path

from fedflair.report.data import read_groups
from fedflair.report.plots import COLOURS, label_plot, user_plot
from tests.report.folders import write_run


def test_a_group_keeps_its_colour_where_another_has_no_values(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, 0.5, label_ap={} if name == "a" else {"food": 0.5}) for name in "ab"]
    drawn = label_plot(read_groups(runs), ["food"])
    assert COLOURS[1] in drawn
    assert COLOURS[0] not in drawn


def test_of_several_groups_each_label_has_one_row_of_marks(tmp_path: Path) -> None:
    """Ten bars a label could not be told apart: whatever the number of groups, a figure is as high."""
    runs = [write_run(tmp_path / str(k), 0.5, label_ap={"food": k / 10, "pet": 0.5}) for k in range(10)]
    two, ten = (label_plot(read_groups(runs[:number]), ["food", "pet"]) for number in (2, 10))
    heights = [re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', drawn) for drawn in (two, ten)]
    assert heights[0] and heights[1] and heights[0][1] == heights[1][1]
    assert all(colour in ten for colour in COLOURS)


def test_users_of_many_groups_are_drawn_as_shares_up_to_each_ap(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(k), 0.5) for k in range(4)]
    for run in runs:
        (run / "per_user_test.jsonl").write_text('{"micro_ap": 0.5}\n{"micro_ap": 0.7}\n')
    few, many = user_plot(read_groups(runs[:3]), "test"), user_plot(read_groups(runs), "test")
    assert few and "share of users" in few
    assert many and "users at or below it" in many
