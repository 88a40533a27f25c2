"""The report: what it reads, what it shows, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedflair.errors import DataError
from fedflair.report import cells, page, read_run, report


def write_run(folder: Path, macro_ap: float, privacy: dict[str, object] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("cohort_size: 3\nrun_note: <b>bold</b>\n")
    rows = [
        {"round": r, "train/loss": 1 / r, "val/macro_ap": macro_ap * r / 2, "val/mean_prevalence": 0.2} for r in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = {"macro_ap": macro_ap, "micro_ap": 0.5, "macro_f1": 0.4, "loss": 0.3, "mean_prevalence": 0.2}
    summary = {"setting": "flair", "rounds": 2, "seconds": 90.0, "val": test, "test": test, "privacy": privacy}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_the_page_holds_the_table_the_curves_and_the_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    privacy = {"epsilon": 2.0, "delta": 1e-5, "simulated": True, "words": "a simulation of <5000> users"}
    runs = [write_run(tmp_path / "a", 0.61), write_run(tmp_path / "<i>b", 0.52, privacy)]
    output = tmp_path / "out" / "report.html"
    report(*runs, output=output)
    text = output.read_text()
    assert "0.610" in text
    assert "2 *" in text
    assert text.count("<svg") == 2
    assert "a simulation of &lt;5000&gt; users" in text
    assert "Not covered by epsilon" in text
    assert "<i>b" not in text
    assert "<b>bold" not in text
    assert "src=" not in text
    assert "http-equiv" not in text
    printed = capsys.readouterr().out
    assert "0.610" in printed
    assert "a simulation" in printed


def test_cells_by_hand(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", 0.61))
    assert cells(run) == ("a", "flair", "2", "0.610", "0.500", "0.400", "0.300", "0.200", "-", "1.5")


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", 0.61))
    assert page([run]) == page([run])


def test_a_folder_that_is_no_finished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such run folder"):
        read_run(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"summary\.json: no such file; the run has not ended"):
        read_run(tmp_path / "empty")
    broken = write_run(tmp_path / "broken", 0.5)
    (broken / "metrics.jsonl").write_text('{"round": 1\n{"round": 2}\n')
    with pytest.raises(DataError, match="line 1 is not JSON"):
        read_run(broken)
