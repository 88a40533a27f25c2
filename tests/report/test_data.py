"""What the report knows of runs and sweeps: read from their folders, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedflair.errors import DataError
from fedflair.report.data import Group, curve, label_means, read_groups
from fedflair.report.table import cells
from tests.report.folders import write_run, write_sweep


def test_a_sweep_is_grouped_by_point_with_mean_and_deviation(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "sweep")
    (group,) = read_groups([folder])
    # sqrt(((0.5 - 0.6)^2 + (0.7 - 0.6)^2) / (2 - 1)) = 0.1414
    assert cells(group)[:5] == ("rate=1 (2 runs)", "2", "-", "-", "0.600 ± 0.141")
    rounds, means, deviations = curve(group, "val/macro_ap")
    assert (rounds, means) == ([1, 2], pytest.approx([0.3, 0.6]))
    assert deviations == pytest.approx([0.005**0.5, 0.02**0.5])
    assert label_means(group) == pytest.approx({"animal": 0.7, "food": 0.5})
    other = write_run(tmp_path / "single", 0.4)
    assert [g.name for g in read_groups([folder, other])] == ["sweep: rate=1", "single"]


def test_a_long_run_is_drawn_in_few_points(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", 0.5)
    rows = [{"round": r, "train/loss": float(r % 2)} for r in range(1, 5001)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rounds, means, _ = curve(Group("a", read_groups([folder])[0].runs), "train/loss")
    assert len(rounds) == 200
    assert rounds[-1] == 5000
    assert means == pytest.approx([0.5] * 200, abs=0.05)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run folder"):
        read_groups([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"config\.yaml: no such file; .*empty is not a run folder"):
        read_groups([tmp_path / "empty"])
    broken = write_run(tmp_path / "broken", 0.5)
    (broken / "metrics.jsonl").write_text('{"round": 1\n{"round": 2}\n')
    with pytest.raises(DataError, match="line 1 is not JSON"):
        read_groups([broken])
    sweep = write_sweep(tmp_path / "sweep")
    (sweep / "sweep.json").write_text("{}")
    with pytest.raises(DataError, match=r"sweep\.json: not the results of a sweep"):
        read_groups([sweep])
