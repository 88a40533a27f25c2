"""The report: what it reads, what it shows, what it refuses."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedflair.config.train_config import TrainConfig
from fedflair.errors import DataError
from fedflair.report.data import Group, curve, label_means, read_groups
from fedflair.report.plots import COLOURS, label_plot
from fedflair.report.table import cells, report
from fedflair.runs.folder import RunFolder
from fedflair.sweep.plan import Trial
from fedflair.sweep.results import outcome_of, write_results


def write_run(folder: Path, macro_ap: float, privacy: dict[str, object] | None = None, **more: Any) -> Path:
    """A run folder of two rounds, as training leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("cohort_size: 3\ncentral_num_iterations: 2\nrun_note: <b>bold</b>\n")
    rows = [
        {"round": r, "train/loss": 1 / r, "val/macro_ap": macro_ap * r / 2, "val/mean_prevalence": 0.2}
        | {"train/seconds": 45.0, "train/num_examples": 10, "train/bytes_up": 2e6, "train/simulated_seconds": 1800}
        for r in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = {"macro_ap": macro_ap, "micro_ap": 0.5, "macro_f1": 0.4, "loss": 0.3, "mean_prevalence": 0.2}
    summary = {"setting": "flair", "rounds": 2, "seconds": 90.0, "val": test, "test": test, "privacy": privacy}
    (folder / "summary.json").write_text(json.dumps(summary))
    label_ap = more.get("label_ap", {"animal": macro_ap + 0.1, "food": macro_ap - 0.1, "music": None})
    (folder / "label_ap.json").write_text(json.dumps(label_ap))
    return folder


def write_sweep(folder: Path) -> Path:
    """A sweep of one point with two seeds, whose macro AP is 0.5 and 0.7, and one that never ran."""
    config = TrainConfig()
    trials = [Trial("rate=1", None, {"learning_rate": 1.0}, seed, f"rate=1-seed{seed}", config) for seed in (0, 1)]
    trials.append(Trial("rate=2", None, {"learning_rate": 2.0}, 0, "rate=2-seed0", config))
    for trial, macro_ap in zip(trials, (0.5, 0.7)):
        write_run(folder / "runs" / trial.name, macro_ap)
    runs = [RunFolder(folder / "runs" / trial.name) for trial in trials]
    write_results(folder, trials, [outcome_of(run, folder / "absent.log") for run in runs])
    return folder


class Texts(HTMLParser):
    """The visible texts of a page, and whatever would be fetched from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.fetched: list[str] = []

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe", "object") or any(name == "src" for name, _ in attrs):
            self.fetched.append(tag)
        self.fetched += [str(v) for k, v in attrs if k in ("href", "xlink:href") and not str(v).startswith("#")]


def parsed(path: Path) -> Texts:
    texts = Texts()
    texts.feed(path.read_text())
    return texts


def test_the_page_holds_the_tables_the_figures_and_the_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    privacy = {"epsilon": 2.5, "delta": 1e-5, "simulated": True, "words": "a simulation of <5000> users"}
    runs = [write_run(tmp_path / "a", 0.61), write_run(tmp_path / "<i>b", 0.52, privacy)]
    rows = [{"num_images": 3, "micro_ap": 0.4}, {"num_images": 1, "micro_ap": None}]
    rows[0] |= {"global": {"micro_ap": 0.4}, "personalised": {"micro_ap": 0.5}}
    (runs[0] / "per_user_test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out" / "report.html"
    report(*runs, output=output)
    text, page = output.read_text(), parsed(output)
    assert page.fetched == []
    # Curves of macro AP and of the loss, labels, users, and users' gain; no run has micro AP on val.
    assert text.count("<svg") == 5
    assert {"0.610", "2.5 *", "AP of each label on test; not covered by epsilon", "animal", "food"} <= set(page.texts)
    assert "music" not in page.texts
    assert {"minutes", "images trained on", "20", "MB up", "4.0", "simulated hours", "1.00"} <= set(page.texts)
    assert "MB down" not in page.texts
    assert "* <i>b: a simulation of <5000> users" in page.texts
    assert any(words.startswith("Not covered by epsilon") for words in page.texts)
    # Nowhere without the star that calls it simulated.
    assert "2.5" not in page.texts
    assert "<i>b" not in text
    assert "<b>bold" not in text
    printed = capsys.readouterr().out
    assert "0.610" in printed
    assert "a simulation" in printed


def test_cells_by_hand(tmp_path: Path) -> None:
    (group,) = read_groups([write_run(tmp_path / "a", 0.61)])
    assert cells(group) == ("a", "flair", "2", "-", "0.610", "0.500", "0.400", "0.300", "0.200", "1.5")


def test_a_sweep_is_grouped_by_point_with_mean_and_deviation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_sweep(tmp_path / "sweep")
    (group,) = read_groups([folder])
    # sqrt(((0.5 - 0.6)^2 + (0.7 - 0.6)^2) / (2 - 1)) = 0.1414
    assert cells(group)[:5] == ("rate=1 (2 runs)", "flair", "2", "-", "0.600 ± 0.141")
    rounds, means, deviations = curve(group, "val/macro_ap")
    assert (rounds, means) == ([1, 2], pytest.approx([0.3, 0.6]))
    assert deviations == pytest.approx([0.005**0.5, 0.02**0.5])
    assert label_means(group) == pytest.approx({"animal": 0.7, "food": 0.5})
    other = write_run(tmp_path / "single", 0.4)
    assert [g.name for g in read_groups([folder, other])] == ["sweep: rate=1", "single"]
    report(folder, output=tmp_path / "report.html", json=True)
    facts = json.loads(capsys.readouterr().out)
    assert [(run["run"], run["group"], run["test"]["macro_ap"]) for run in facts] == [
        ("rate=1, seed 0", "rate=1", 0.5),
        ("rate=1, seed 1", "rate=1", 0.7),
    ]
    assert "bands: one standard deviation over seeds" in (tmp_path / "report.html").read_text()


def test_an_unfinished_run_is_shown_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done, stopped = write_run(tmp_path / "done", 0.61), write_run(tmp_path / "stopped", 0.5)
    (stopped / "summary.json").unlink()
    (stopped / "metrics.jsonl").write_text((stopped / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    report(done, stopped, output=tmp_path / "report.html")
    assert {"1 of 2", "0.610"} <= set(parsed(tmp_path / "report.html").texts)
    printed = capsys.readouterr().out
    assert "stopped has not ended: round 1 of 2; its scores are missing." in printed
    report(done, stopped, output=tmp_path / "report.html", json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts[1] == {"run": "stopped", "group": "stopped", "unfinished": True, "rounds": 1}


def test_a_group_keeps_its_colour_where_another_has_no_values(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, 0.5, label_ap={} if name == "a" else {"food": 0.5}) for name in "ab"]
    drawn = label_plot(read_groups(runs), ["food"])
    assert COLOURS[1] in drawn
    assert COLOURS[0] not in drawn


def test_many_labels_show_the_best_and_the_worst(tmp_path: Path) -> None:
    label_ap = {f"label {k}": k / 1628 for k in range(1628)}
    report(write_run(tmp_path / "fine", 0.2, label_ap=label_ap), output=tmp_path / "report.html")
    page = parsed(tmp_path / "report.html")
    shown = {text for text in page.texts if text.startswith("label ")}
    assert shown == {f"label {k}" for k in (*range(25), *range(1603, 1628))}
    assert "the 25 best of the 1,628 labels with positives on test" in page.texts
    assert (tmp_path / "report.html").stat().st_size < 300_000


def test_a_long_run_is_drawn_in_few_points(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", 0.5)
    rows = [{"round": r, "train/loss": float(r % 2)} for r in range(1, 5001)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rounds, means, _ = curve(Group("a", read_groups([folder])[0].runs), "train/loss")
    assert len(rounds) == 200
    assert rounds[-1] == 5000
    assert means == pytest.approx([0.5] * 200, abs=0.05)


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 0.61)
    report(run, output=tmp_path / "one.html")
    report(run, output=tmp_path / "two.html")
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


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
